// Package udp relays the datagrams of one published port.
//
//	loop, err := udp.NewLoop(frontend, netip.MustParseAddrPort("172.17.0.2:53"), udp.Options{})
//	...
//	err = loop.Serve() // until loop.Close
//
// There are two relays, which keep the same promises and share the table of flows: Loop is an event loop, for Linux;
// Portable has a goroutine for each flow and runs wherever Go does.
//
// # Flows
//
// UDP has no connections, so the relay remembers who spoke: a flow is a client's address and port together with the
// local address it asked. Each flow has a socket connected to the backend, and so one port that the backend sees for
// as long as the flow lives. A reply on that socket goes to the flow's client, from the address it asked; on Linux
// the kernel tells that address with each datagram (IP_PKTINFO, IPV6_RECVPKTINFO) and takes it back with the reply.
// A link-local IPv6 address is only an address together with its interface, so there the interface is part of the
// flow. The address may be local by a route only (IPV6_FREEBIND). Elsewhere than on Linux replies leave from the
// address that the kernel chooses.
//
// The state of a flow and what changes it:
//
//	none       a datagram from a client             open a socket, enter the table → one-sided
//	one-sided  a datagram from the backend          → two-sided
//	either     a datagram, whichever way            seen = now
//	either     idle for the timeout                 close → none (Expired)
//	either     room is needed, and it is the victim close → none (Evicted)
//	either     its socket fails                     close → none (Abandoned)
//
// No transition loses a client: from none, the next datagram opens a new flow. What is lost is the port that the
// backend knew, and replies to it that are still to come.
//
// # A turn of the loop
//
// epoll tells which sockets are ready, level-triggered. The clock is read. Then replies go before requests, as each of
// them was a request before:
//
//	replies   for each flow that is ready: one receive, into the outbox; then, or when the outbox is full, one
//	          sendmmsg on the frontend for the replies of all flows
//	requests  one receive on the frontend; then a send for each run of datagrams of one flow
//
// So a turn takes at most one batch from each socket that is ready, 32 messages, and neither a client nor a backend
// that floods can delay the others by more. How much a receive asks for follows what the socket has had lately (depth).
//
// The loop has one set of buffers, outside of Go's heap: 32, each for the largest of messages. Their pages are taken
// when datagrams reach them, and given back when the loop has been idle for a second. An idle flow has a socket and
// 0.36 kB in the process, table and all (TestIdleFlows in cmd/portsplice).
//
// # Blocks
//
// The kernel can be given several datagrams for one destination as one block, to be cut only where it is received or
// leaves the host (UDP_SEGMENT), and can hand them to a program in the same form (UDP_GRO). The frontend takes blocks,
// and a flow's socket does once it had several datagrams at a time. A block passes as the block it came as. Single
// datagrams that come one after the other, of one flow and of the same size but for the last, are made one. A block
// that is refused (the device cannot do it, or its datagrams are larger than the device's packets) is sent datagram by
// datagram, and the flow learns not to make such blocks. Empty datagrams are never part of one: there they would be
// nothing.
//
// # Time
//
// A datagram costs no reading of the clock in the loop, and one in the portable relay; the time is stored in its flow.
// The flows are in two queues by idle time, one-sided and two-sided, that are put right only when somebody asks for the
// front. That happens when the first flow may be idle, at most eight times per timeout, so a flow is forgotten between
// one timeout and 9/8 of it after its last datagram. The loop first reads what is queued, for an eighth of the timeout
// more at most, so that a process that stood still takes no flow for idle whose datagrams waited. Without flows nothing
// waits for time to pass, and nothing of an idle port wakes up.
//
// # Room
//
// The table is bounded, and a new client is served whether or not it is full. The victim is, among the flows idle
// for a second or more, one that never had an answer rather than one that had, and of these the one idle longest.
// If none has been idle for a second, a busy one goes: of the answered or of the unanswered, whichever are more, and of
// these the one idle longest. That is for clients that come in a burst: otherwise each would evict the one before,
// which has no answer yet. It bounds a flood as well: clients that are never answered take at most half of the table
// from busy flows that are (and what was idle for a second). A dial that finds no descriptor or no ephemeral port
// evicts in the same way and tries again.
//
// # Failures
//
// The kernel tells of an ICMP error once, at the next call on the flow's socket, whichever that is. If it is a send,
// the datagram in hand has not left, and is sent again, once: the error was about another. If it is a receive, that is
// all: the next one waits again. Either way the flow lives on, and a backend that comes back gets the next datagram
// from the port that it knows. When the second try fails too the datagram is dropped. If the cause is its size, a
// backend that is down, a full queue, or the host's packet filter or routes, that is all. Otherwise the socket is no
// good any more (its source address may have left the host) and the flow is abandoned. Where a socket has no room to
// send, the datagram is dropped, as UDP does: the loop never waits for a socket. Errors on the frontend never end the
// relay: calls that keep failing are made at most ten times a second. An inherited one does not keep its queue of
// errors (IP_RECVERR), which nobody would read. All failures are reported, and every datagram that was received is
// counted as relayed or as dropped. Those that the kernel had no room for are counted too, on Linux: with the next
// datagram (SO_RXQ_OVFL), when the counts are asked for, and when a flow closes (SO_MEMINFO). There are at least as
// many: the kernel counts a block that it loses as one.
//
// # The portable relay
//
// A flow waits in a goroutine, and takes a 64 KiB buffer from a pool only once there is a datagram. So it costs about
// 6 kB in the process (BenchmarkIdleFlow) and 2.8 kB in the kernel (Slab in /proc/meminfo, kernel 6.18), and two calls
// of read per wake-up, the second to learn that there is no more: as many as net makes. Elsewhere than on Linux each
// flow has a buffer of its own. The frontend has one, of which only the pages that datagrams reached are in memory.
// On Linux the sockets have as much room as the loop's: the frontend from the start, a flow's once it had several
// datagrams at a time.
package udp
