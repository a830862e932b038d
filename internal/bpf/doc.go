// Package bpf has local clients reach containers without the proxy: connect(2) to a published TCP port becomes
// connect(2) to its backend, before the kernel looks for a route. What was one connection to the proxy and one from it
// is a single connection, which the proxy neither sees nor carries.
//
// # Programs
//
// A Table attaches one eBPF program to each of six hooks of the root cgroup (version 2), beside those of others, for
// all ports together:
//
//	connect4, connect6          look the address up, and put the backend's in its place
//	getpeername4, getpeername6  tell the address that was asked for
//	getsockname4, getsockname6  tell a loopback address where one was asked for
//
// They are assembled here (programs_linux.go) and need no compiler. Nothing is pinned: when the process ends, in
// whatever way, the kernel detaches them, and clients come to the port's socket again.
//
// # Maps
//
//	ports      (network namespace, address, port) to (backend, generation, count of bypassed connections)
//	addresses  (network namespace, address): what a port on 0.0.0.0 or :: matches, beside 127.0.0.0/8
//	asked      what a socket asked for; it is part of the socket (socket storage)
//
// Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, which is also how an IPv6 socket asks for one. The
// namespace is its cookie: sockets of containers and other namespaces match nothing.
//
// A port on one address matches that address. A port on 0.0.0.0 or :: matches the addresses that the namespace has,
// which a netlink socket tells of (addresses_linux.go), and no others: the kernel would send what goes elsewhere to the
// network. An address that the table does not know, because it is new, or link-local, or there are more than it has
// room for, is served by the proxy. So is an address that is local by a route only.
//
// # What takes the proxy
//
// A program changes an address only if the result is the connection that the proxy would have made. Left alone are
//
//   - sockets that are bound to an address, an interface (SO_BINDTODEVICE) or a mark (SO_MARK): each chooses a route,
//     and 127.0.0.1 as a source reaches no container
//   - IPv6 sockets that ask for an IPv6 address of a port with an IPv4 backend, and are IPV6_V6ONLY or bound to a port:
//     the others are bound to ::ffff:0.0.0.0 first, which the kernel refuses to those
//   - MPTCP sockets: getpeername sees another socket than connect does. Without CAP_PERFMON, or before Linux 5.19, they
//     are not known; they are bypassed then, and getpeername tells the backend's address
//   - sockets with TCP_FASTOPEN_CONNECT: connect only takes the address, and the first byte goes there, which may be when
//     the backend has gone. Without CAP_PERFMON, or before Linux 5.10, they are not known, and bypassed
//   - all but TCP. A connected UDP socket would outlive its backend, and an unconnected one checks the source of
//     replies
//
// A connect that fails may be repeated on the same socket. An IPv6 socket that was refused by an IPv4 backend has
// become one of IPv4, as the kernel has it: when the port has gone, it is told EAFNOSUPPORT, and a new socket reaches
// what is there.
//
// # Kernels
//
// What is used of the kernel, since when, and where that is done. A kernel before 5.8 refuses the first program.
//
//	5.8   getpeername4 and the other three names; CAP_BPF                  programs_linux.go
//	5.7   links to a cgroup                                                table_linux.go
//	5.7   bpf_get_netns_cookie for these programs                          programs_linux.go
//	5.3   ctx->sk, bpf_sk_storage_get and _delete for these programs       programs_linux.go
//	5.2   socket storage, also by descriptor                               maps_linux.go, cookie_linux.go
//	5.1   jumps on 32 bits                                                 programs_linux.go
//	4.18  types of maps (BTF)                                              maps_linux.go
//	4.17  these programs, bpf_bind                                         programs_linux.go
//
// What is used where it is, and what is done elsewhere:
//
//	6.5   bpf_sock_destroy                                                 pending_linux.go
//	5.19  bpf_skc_to_mptcp_sock; bpf(2) on open maps without CAP_BPF       programs_linux.go, privileges_linux.go
//	5.14  SO_NETNS_COOKIE; before, a program tells it                      cookie_linux.go
//	5.11  maps count as memory; before, against RLIMIT_MEMLOCK             kernel_linux.go
//	5.10  bpf_skc_to_tcp_sock for these programs, and its fields           fastopen_linux.go
//
// # Removal
//
// An entry that has been removed is seen by no connect that begins later. Connections that exist are the container's
// own. An entry has the generation of its port: whoever removes one of a port that another has replaced removes
// nothing.
//
// A connect that the backend has not answered is ended with the port, by ECONNABORTED: the kernel would go on asking at
// that address. A program does that which the kernel runs for each TCP socket (an iterator), if the port has bypassed any.
// It takes 2 ms on a machine of 24 GB, whose table of connections is large. Without CAP_PERFMON, or before Linux 6.5, the
// kernel goes on asking.
package bpf
