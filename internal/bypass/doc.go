// Package bypass is how the worker has local clients reach containers without it. What does that is in the kernel, and
// is brought there by a program of its own, portsplice-bypass (internal/bpf): so the library for it is in no process
// that serves ports, and the privileges that it takes are in no process that reads what clients send.
//
// The worker starts that program when the first port asks for the bypass, and keeps one end of a socket. When the worker
// ends, in whatever way, the program reads the end of the socket and ends, too, and the kernel detaches what it had
// attached.
//
// # Protocol
//
// The socket keeps messages apart (SOCK_SEQPACKET). A message is words of text with single spaces between them; what may
// have spaces in it stands last. The program speaks first:
//
//	ok                              it is ready
//	no CLASS REASON                 it cannot be, and ends
//
// and answers one message for each of the worker's, in their order:
//
//	add FRONTEND BACKEND            ok NUMBER, or no CLASS REASON
//	count NUMBER                    ok CONNECTIONS
//	remove NUMBER                   ok CONNECTIONS, those to the end, or no CLASS REASON
//
// A class says what the reason is to a program: unsupported, permission or other.
package bypass
