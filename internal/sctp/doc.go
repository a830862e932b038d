// Package sctp relays SCTP associations: for each one that a client opens to the published port, it opens one
// to the backend and passes whole messages between the two.
//
//	relay, err := sctp.New(fd, netip.MustParseAddrPort("172.17.0.2:3868"), sctp.Options{})
//	if err != nil {
//		return err
//	}
//	return relay.Serve() // until relay.Close
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
// directions. When the client's INIT is answered nothing is known of the backend, so the client may open as many
// streams as there are, and is offered frontendStreams for the way back.
//
// # A message's way
//
// One event loop serves all associations of the port: level-triggered epoll, non-blocking sockets, no goroutine and no
// buffer for an association. A pump that epoll has something for borrows a batch and fills it by one recvmmsg: up to
// batchDepth slots, of which a message takes as many as it has pieces. One sendmmsg sends the whole messages from where
// they lie. Small ones share packets (MSG_MORE on all but the last): the kernel would send each in a packet of its own.
//
//	holds nothing       reads when the source has something
//	holds a batch       to which the destination has said EAGAIN: reads no more until the batch has left
//	collects a message  too large for a batch: reads on into a buffer of its own, until it is whole
//
// What a pump holds is bounded so: a batch, 64 KiB, and one message of maxMessage.
//
// # The end of a pair
//
// A pair is two legs and two pumps, one for each direction. A leg tells its end in its receive queue, behind
// the last message: every leg subscribes to the notifications of the association, which never travel further.
// The reader of a leg is therefore the only one that decides how the leg ended. A failed send decides nothing
// if the association is what failed: the reader of that leg will come to the reason.
//
//	read from a leg                        what the pump does, when it holds nothing any longer
//	message                                sends it on the other leg
//	SHUTDOWN (0 bytes, SHUTDOWN_COMP)      shuts the other leg down; the other pump goes on
//	ABORT, time-out, restart (COMM_LOST)   the pair fails
//	PARTIAL_DELIVERY (aborted)             forgets the pieces it has: the sender gave the message up
//	SENDER_DRY                             the leg is flushed (asked for only when the pair fails)
//
// SCTP has no half-close. Once a peer has begun a shutdown, its kernel still takes what ours has queued for it,
// and nothing else: what the other side sends from then on cannot be delivered by anybody. The pump reads it all
// the same, so that the other association can end, and counts it in Stats.Undelivered.
//
// A pair that fails stops forwarding, and gives each leg a bounded time to deliver what was forwarded before
// (SENDER_DRY tells when); then both legs are aborted. So an abort arrives as an abort, behind the messages that
// preceded it, and a lost message never looks like an orderly end.
//
// # Cost
//
// An idle association has no thread, no goroutine, no timer and no buffer: two descriptors and 1.3 kB of private memory
// (TestProgramIdle, User Mode Linux 6.1). The price is that one thread moves all messages of a port: the loop does not
// grow over CPUs as that of package splice does.
//
// A message alone costs an epoll_wait, a recvmmsg and a sendmmsg; of those that come together, 32 share the three. While
// there is traffic the Go scheduler is not told that the loop waits, for at most briefWait: it would wake a thread to
// watch over it. The clock is read only while an alarm is set: for a dial, a pump that waits for room, a pair that fails.
//
// The kernel's share is larger: 24 bytes for every stream that was offered, whether or not it was accepted, and
// 20 for every stream that was accepted (Linux 6.1). That is why the listener does not offer all 65535, which
// docker-proxy does.
package sctp
