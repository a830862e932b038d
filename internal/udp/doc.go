// Package udp relays the datagrams of one published port, with goroutines and net.UDPConn: it runs wherever Go does.
//
//	frontend, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 5353})
//	...
//	relay, err := udp.New(frontend, netip.MustParseAddrPort("172.17.0.2:53"), udp.Options{})
//	...
//	err = relay.Serve() // until relay.Close
//
// # Flows
//
// UDP has no connections, so the relay remembers who spoke: a flow is a client's address and port together with the
// local address it asked. Each flow has a socket connected to the backend, and so one port that the backend sees for
// as long as the flow lives. A reply on that socket goes to the flow's client, from the address it asked; on Linux
// the kernel tells that address with each datagram (IP_PKTINFO, IPV6_RECVPKTINFO) and takes it back with the reply.
// A link-local IPv6 address is only an address together with its interface, so there the interface is part of the
// flow. Elsewhere than on Linux replies leave from the address that the kernel chooses.
//
// The state of a flow and what changes it:
//
//	none       a datagram from a client             open a socket, enter the table → one-sided
//	one-sided  a datagram from the backend          → two-sided
//	either     a datagram, whichever way            seen = now
//	either     idle for the timeout                 close → none (Expired)
//	either     room is needed, and it is the victim close → none (Evicted)
//	either     its socket fails twice               close → none (Abandoned)
//
// No transition loses a client: from none, the next datagram opens a new flow. What is lost is the port that the
// backend knew, and replies to it that are still to come.
//
// # Time
//
// A datagram costs one reading of the clock, stored in its flow. The flows are in two queues by idle time, one-sided
// and two-sided, that are put right only when somebody asks for the front. One timer asks when the first flow may be
// idle, at most eight times per timeout, so a flow is forgotten between one timeout and 9/8 of it after its last
// datagram. Without flows there is no timer, and nothing of an idle port wakes up.
//
// # Room
//
// The table is bounded, and a new client is served whether or not it is full. The victim is, among the flows idle
// for a second or more, one that never had an answer rather than one that had, and of these the one idle longest.
// If none has been idle for a second, a busy one goes, in the same order. The second is there for clients that come
// in a burst: without it each would evict the one before, which has no answer yet. A dial that finds no descriptor
// or no ephemeral port evicts in the same way and tries again.
//
// # Failures
//
// The kernel tells of an ICMP error once, at the next call on the flow's socket, whichever that is. If it is a send,
// the datagram in hand has not left, and is sent again, once: the error was about another. If it is a receive, that is
// all: the next one waits again. Either way the flow lives on, and a backend that comes back gets the next datagram
// from the port that it knows. When the second try fails too the datagram is dropped; if the cause is neither its size
// nor a backend that is down, the socket is no good any more (its source address may have left the host) and the flow
// is abandoned. Errors on the frontend never end the relay: calls that keep failing are made at most ten times a
// second. All failures are reported, and every datagram that was received is counted as relayed or as dropped.
//
// # Memory
//
// A flow waits in a goroutine, and takes a 64 KiB buffer from a pool only once there is a datagram. So it costs about
// 6 kB in the process (BenchmarkIdleFlow) and 2.8 kB in the kernel (Slab in /proc/meminfo, kernel 6.18), and two calls
// of read per wake-up, the second to learn that there is no more: as many as net makes. Elsewhere than on Linux each
// flow has a buffer of its own. The frontend has one, of which only the pages that datagrams reached are in memory.
package udp
