// Package sctp relays SCTP associations: for each one that a client opens to a published port, it opens one
// to the backend and passes whole messages between the two.
//
//	group, err := eventloop.New(eventloop.Options{})
//	...
//	port, err := sctp.New(group, fd, netip.MustParseAddrPort("172.17.0.2:3868"), sctp.Options{})
//	...
//	port.Close() // takes no more clients
//	port.Abort() // and ends those that it has
//	group.Close()
//
// # What is kept
//
// SCTP carries messages, not a stream of bytes, and every message has a stream number, a payload protocol
// identifier (PPID) and perhaps the unordered flag. All of that arrives as it was sent. A message comes out of
// the kernel in as many pieces as it likes; only MSG_EOR ends it, so a pump hands a message on when it has all of its
// pieces, and then as one. The PPID is opaque: the kernel does not swap its bytes, and neither does the relay.
//
// A message may be as large as maxMessage. The kernel refuses one that is larger than the send buffer
// (EMSGSIZE), so the buffer is raised for it: above net.core.wmem_max only with CAP_NET_ADMIN.
//
// Streams are agreed on when an association begins, and a message on a stream that was not agreed on is EINVAL.
// The client's association is first: the backend is offered exactly as many streams as it has, in both
// directions. What the backend grants of them is learnt, and offered to later clients. Before anything is known, a client
// may open as many streams as there are, and is offered frontendStreams for the way back. If the backend grants fewer than
// the client has, the streams that it does not have share those that it has (leg.stream): each keeps its order.
//
// The backend's leg is bound to the address that the route says, so that a container learns that one of the host's
// addresses. What a client learns is up to the listener: if it is bound to no address, all that the host has.
//
// # The life of a pair
//
// A pair is two legs, the client's and the backend's, and two pumps, one for each direction. All of a pair is on one
// event loop; the loop gives it to another one to share the load (pair.move).
//
//	dialing   ── the backend has answered ──────────────▶ relaying
//	dialing   ── refused, or no answer in time ─────────▶ ended      the client is aborted
//	relaying  ── both pumps are over ───────────────────▶ ended      both sides have shut down
//	relaying  ── a leg is lost, or a pump cannot go on ─▶ failing    nothing more is forwarded
//	failing   ── both legs are flushed, or time is over ▶ ended      both legs are aborted
//
// # A message's way
//
// Level-triggered epoll, non-blocking sockets, no goroutine and no buffer for an association. A pump that epoll has
// something for borrows a batch and fills it by one recvmmsg: up to batchDepth slots, of which a message takes as many as
// it has pieces. One sendmmsg sends the whole messages from where they lie. Small ones share packets (MSG_MORE on all but
// the last): the kernel would send each in a packet of its own. A pump that has filled a batch goes on in the loop's
// queue, a batch in each turn, so that others wait for one batch and not for all that there is.
//
//	state       holds
//	reading     nothing              reads when the source has something
//	collecting  a part of a message  too large for a batch: reads on into a buffer of its own, until it is whole
//	starved     a part of a message  for whose rest the port has no memory: tries again every 100 ms
//	blocked     whole messages       the destination has said EAGAIN: waits for EPOLLOUT, reads nothing
//	denied      whole messages       EPOLLOUT was told, and not one was taken: tries again every second
//	over        nothing              the end of the source was passed on
//
//	reading, collecting ── read ──▶ reading, collecting, starved, blocked, over
//	starved ── memory ──▶ collecting
//	blocked ── EPOLLOUT ──▶ reading, collecting, over; blocked if some were taken, denied if none
//	denied ── a look ──▶ as blocked
//
// The state is always what follows from what the pump holds (pump.push). It decides what the legs are watched for
// (interest): nothing is watched for that the pump could do nothing about, or the loop would spin. Errors and
// hang-ups cannot be masked. A leg that has one for ever is watched by edges.
//
// What a pump holds is bounded so: a batch, 64 KiB, and one message of maxMessage. What messages hold beyond 128 KiB each is
// bounded for the port (Options.Memory): a message that must grow when all is taken waits in its client. One at a time
// goes beyond, so that messages that are half there do not wait for each other for ever. A message whose end does not
// come within patience.message is given up with its pair, and so is one that its receiver does not take, while others wait
// for the memory.
//
// # The end of a pair
//
// A leg tells its end in its receive queue, behind the last message: every leg subscribes to the notifications of the
// association, which never travel further. The reader of a leg is therefore the only one that decides how the leg ended.
// A failed send decides nothing if the association is what failed: the reader of that leg will come to the reason.
//
//	read from a leg                        what the pump does, when it holds nothing any longer
//	message                                sends it on the other leg
//	SHUTDOWN (0 bytes, SHUTDOWN_COMP)      shuts the other leg down; the other pump goes on
//	ABORT, time-out (COMM_LOST)            the pair fails
//	RESTART by the client                  its leg goes to a new pair, which dials anew; the old one fails
//	RESTART by the backend                 the pair fails
//	PARTIAL_DELIVERY (aborted)             forgets the pieces it has: the sender gave the message up
//	SENDER_DRY                             the leg is flushed (asked for only when the pair fails)
//
// SCTP has no half-close. Once a peer has begun a shutdown, its kernel still takes what ours has queued for it,
// and nothing else: what the other side sends from then on cannot be delivered by anybody. The pump reads it all
// the same, so that the other association can end, and counts it in Stats.Undelivered.
//
// A pair that fails stops forwarding, and gives each leg a bounded time to deliver what was forwarded before
// (SENDER_DRY tells when); then both legs are aborted. So an abort arrives as an abort, behind the messages that
// preceded it, and a lost message never looks like an orderly end. What was sent with MSG_MORE waits in the kernel for
// the next message: the rest of its batch is still sent then, or it would never leave. The process may be killed at any
// time: sockets are set to abort when they are closed (SO_LINGER), until their end is in order.
//
// # Cost
//
// An idle association has no thread, no goroutine, no timer and no buffer: two descriptors and 1.7 kB of private memory
// (TestProgramIdle, User Mode Linux 6.1).
//
// A message alone costs an epoll_wait, a recvmmsg and a sendmmsg; of those that come together, 32 share the three. The
// clock is read only while a deadline is set: for a dial, a pump that waits, a large message, a pair that fails.
//
// The kernel's share is larger: 24 bytes for every stream that was offered, whether or not it was accepted, and
// 20 for every stream that was accepted (Linux 6.1). That is why the listener does not offer all 65535, which
// docker-proxy does.
package sctp
