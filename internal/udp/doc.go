// Package udp relays the datagrams of one published port.
//
//	group, err := eventloop.New(eventloop.Options{})
//	...
//	port, err := udp.New(group, frontend, netip.MustParseAddrPort("172.17.0.2:53"), udp.Options{})
//	...
//	err = port.Close()
//
// There are two relays, which keep the same promises and share the table of flows (package flows): Port is a handler
// on event loops, for Linux, with as many ports on them as there are; Portable has a goroutine for each flow and
// runs wherever Go does.
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
//	either     its socket fails, or is replaced     close → none (Abandoned)
//
// A flow keeps the settings of the port that it was opened with, its backend among them, but for the timeout and the bound
// of the table: Port.SetBackend and most of Port.SetOptions are for the next ones.
//
// No transition loses a client: from none, the next datagram opens a new flow. What is lost is the port that the
// backend knew, and replies to it that are still to come. Those that wait in the flow's socket are read before it is
// closed: one batch goes to the client, and what is beyond that is dropped, as it would keep the others waiting.
//
// # A turn of a loop
//
// Package eventloop tells which sockets are ready, level-triggered. Replies go before requests, as each of them was
// a request before:
//
//	events    for each flow that is ready: one receive, into the outbox; then, when it is full or another port's turn
//	          comes, one sendmmsg on the frontend for the replies of all flows
//	turn end  the outbox is sent; for each frontend that is ready: one receive; then a send for each run of datagrams
//	          of one flow
//
// So a turn takes at most one batch from each socket that is ready, 32 messages, and neither a client nor a backend
// that floods can delay the others by more. How much a receive asks for follows what the socket has had lately
// (depth).
//
// What the ports on a loop share is its lane: one set of buffers, outside of Go's heap: 32, each for the largest of
// messages. Their pages are taken when datagrams reach them, and given back when none has come for a second. An idle
// flow has a socket and 0.41 kB in the process, table and all (TestIdleFlows in cmd/portsplice).
//
// # Several loops
//
// A port's home is the loop that its frontend is on, and its table belongs to it. The socket of a flow begins there.
// The group of loops moves what makes work from a loop that is saturated to another: flows, and so the way back of
// their datagrams, and ports, and so the way there of theirs. So a port that one CPU cannot carry has clients'
// datagrams on one and the backend's on another. Each way of a flow is on one loop at any time, so nothing
// overtakes.
//
//	at home       the home's goroutine alone touches the flow
//	between       nobody reads its socket; its new loop is about to
//	away          its loop reads, under the flow's lock; the home sends, and under the lock takes the socket to close it
//
// The lock is for one case: the home needs a descriptor at once, for a new client, while the other loop may be
// reading from it. Then the home reads what waits, too, and its last datagrams may overtake those that the other loop
// has in its outbox. Nothing is sent or reported while the lock is held. What the other loop finds out, the home is
// told: that the backend has answered, that the socket has failed. The frontend is closed when the last loop has
// forgotten the last flow, as each may still be sending on it.
//
// # Blocks
//
// The kernel can be given several datagrams for one destination as one block, to be cut only where it is received or
// leaves the host (UDP_SEGMENT), and can hand them to a program in the same form (UDP_GRO). The frontend takes
// blocks, and a flow's socket does once it had several datagrams at a time. Where blocks may be sent a block passes
// as the block it came as, and single datagrams that come one after the other, of one flow and of the same size but
// for the last, are made one. A block that is refused (the device cannot do it, or its datagrams are larger than the
// device's packets) is sent datagram by datagram, and so is each such of its flow from then on. Where blocks may be
// sent is Options.Blocks; by itself it is where they are sure to be cut again (blocks_linux.go says why): on this
// host's loopback, and to clients who come by hardware. Elsewhere a block is received as one, and sent as single
// datagrams by few calls. Empty datagrams are never part of one: there they would be nothing.
//
// # DSCP and ECN
//
// The octet that IPv4 calls type of service and IPv6 traffic class passes with each datagram, both ways: telephony marks
// its voice in it (DSCP), and QUIC learns of a queue by it before a datagram is lost (ECN). The kernel tells it with
// what is received (IP_RECVTOS, IPV6_RECVTCLASS) and takes it with what is sent, as a control message (IP_TOS,
// IPV6_TCLASS), which there is only where it is not zero: a frontend's datagrams are of many clients, so the socket's own
// option would have to be set for each. Datagrams are put together into a block only if they have the same, as those are
// that the kernel has put together. Elsewhere than on Linux all leave with zero.
//
// # Time
//
// The clock is read once in a turn of a loop, and for each datagram in the portable relay; the time is stored in its
// flow. The flows are in two queues by idle time, one-sided and two-sided, that are put right only when somebody asks
// for the front. That happens when the first flow may be idle, at most eight times per timeout, so a flow is forgotten
// between one timeout and 9/8 of it after its last datagram, and at most a quarter of a second later. That is for what
// waits: a process that stood still (SIGSTOP, a frozen cgroup, a suspended machine) first reads what is queued. The
// loops do so for all deadlines, and the home asks the socket of a flow on another loop before it forgets it; the
// portable relay lets its goroutines run for so long, or an eighth of a short timeout, before it forgets. Without
// flows nothing waits for time to pass, and nothing of an idle port wakes up.
//
// # Room
//
// The table is bounded, and a new client is served whether or not it is full. The victim is, among the flows idle
// for a second or more, one that never had an answer rather than one that had, and of these the one idle longest. If
// none has been idle for a second, a busy one goes: of the answered or of the unanswered, whichever are more, and of
// these the one idle longest. That is for clients that come in a burst: otherwise each would evict the one before,
// which has no answer yet. It bounds a flood as well: clients that are never answered take at most half of the table
// from busy flows that are (and what was idle for a second). A dial that finds no descriptor or no source port evicts in
// the same way and tries again. When a burst of clients is over, the table gives the memory back that it took for them.
//
// # Source ports
//
// They are the host's, 28,232 for all that speaks UDP there, and every flow holds one. So flows bind theirs from one half
// of the range, the same for all ports and processes (sourceport.UDP), and three quarters of that half are the most that
// a port has flows unless its options say otherwise. The other half is left to the host's resolver and to everybody else.
// When nothing of the half is free, because others are flooded, a port evicts a flow of its own; but one that has hardly
// any, or fewer than the options say, has the kernel choose as for everybody. No bookkeeping between processes is needed:
// bind(2) says whether a port is free, on all addresses, so two flows never have the same. A port that was given up is
// taken again last, after a second or when others have been given up after it: what the backend still answers there
// finds nobody, and not the next client. A flow that its backend is to see as its client (Options.Transparent, package
// transparent) binds its port on the client's address alone, and takes it from the same half all the same: nobody else
// could bind it on all addresses. Between bind(2) and connect(2) anybody could send to the socket, so what it has
// then is thrown away.
//
// # Failures
//
// The kernel tells of an ICMP error once, at the next call on the flow's socket, whichever that is. If it is a send,
// the datagram in hand has not left, and is sent again, once: the error was about another. If it is a receive, that
// is all: the next one waits again. Either way the flow lives on, and a backend that comes back gets the next
// datagram from the port that it knows. Errors that ICMP does not bring are not tried again; nor, for 100 ms, is one
// that the host's routes may have given and that the second try has met as well.
//
// If the cause is the datagram's size, a backend that is down, a full queue, or the host's packet filter or routes, the
// datagram is dropped, and that is all. Otherwise the socket is no good any more (its source address may have left the
// host): the flow is abandoned, and the datagram leaves from a new one. So it is with a flow that has no source address:
// while those of the host are tentative, or there is none, IPv6 has it speak from ::1, without an error, and nothing comes
// back. It is looked for a better one with the datagrams of such a flow, ten times a second at most.
//
// An answer to a client without an address (0.0.0.0) is dropped. Where a socket has no room to send, the datagram is
// dropped, as UDP does: the loop never waits for a socket. A frontend's room is large, as the kernel keeps in it what
// waits for the addresses of clients that have vanished.
//
// Errors on the frontend never end the relay: calls that keep failing, and readiness that brings no datagram, are met at
// most ten times a second. An inherited one does not keep its queue of errors (IP_RECVERR), which nobody would read.
// Buffers are only ever made larger. No socket sets the DF bit by itself, so that what the other side wants cut by
// routers is.
//
// All failures are reported, and every datagram that was received is counted as relayed or as dropped. Those that the
// kernel had no room for are counted too, on Linux: with the next datagram (SO_RXQ_OVFL), when the counts are asked for,
// and when a flow closes (SO_MEMINFO). There are at least as many: the kernel counts a block that it loses as one.
//
// # The portable relay
//
// A flow waits in a goroutine, and takes a 64 KiB buffer from a pool only once there is a datagram. So it costs
// about 6 kB in the process (BenchmarkIdleFlow) and 2.8 kB in the kernel (Slab in /proc/meminfo, kernel 6.18), and
// two receives per wake-up, the second to learn that there is no more: as many as net makes. What waits in the socket
// of a flow that is closed, as its goroutine has not run yet, is dropped and counted, on Linux. Elsewhere each flow has
// a buffer of its own. The frontend has one, of which only the pages that datagrams reached are in memory. On Linux the
// sockets have as much room as the loop's: the frontend from the start, a flow's once it had several datagrams at a
// time.
package udp
