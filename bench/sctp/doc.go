// Command sctp compares SCTP proxies: messages per second and CPU time, in rounds that alternate.
//
//	make bench-sctp                            builds it and runs it inside User Mode Linux
//	bench-sctp -portsplice PATH -reference PATH [-rounds 5] [-time 1s]
//
// Clients and servers are sockets of this one process, driven by one thread without goroutines: User Mode Linux has one
// CPU, and what the load generator takes of it, the proxy does not get. A system call costs 7 us there and more, so what
// counts is how many a proxy makes for a message. Client, proxy and server talk over lo with an
// MTU of 1500. "direct" is the same traffic without a proxy; it is the bound of what any proxy could reach, and shows
// how much of the CPU the two kernels' ends of an association take by themselves.
//
//	exchange/size=S/conns=N   each of N associations has one message under way at a time: there, and back
//	stream/size=S/conns=N     each of N clients sends as fast as the kernel takes messages; received ones count
//
// A message that does not arrive as it was sent ends the benchmark. So messages larger than a packet are not compared:
// docker-proxy passes on the pieces that the kernel gives it, and 16 KiB arrived as a message of 7,260 bytes.
package main
