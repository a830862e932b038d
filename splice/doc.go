// Package splice relays TCP on Linux: it accepts connections on published ports and moves their bytes to and
// from a backend, by recv(2) and send(2) while traffic is small and by splice(2) through a pipe, without
// copying to user space, once it streams.
//
// A whole program:
//
//	engine, err := splice.New(splice.Options{})
//	if err != nil {
//		return err // errors.Is(err, errors.ErrUnsupported): use package fallback
//	}
//	defer engine.Close()
//	_, err = engine.Add(listener, netip.MustParseAddrPort("172.17.0.2:80"))
//
// # Words
//
// The frontend is the host's side of a connection, the backend the container's. Each side has a leg: a connected socket.
// Two legs are a pair. A pump moves the bytes of one direction; a pair has two, each of which reads the leg of its side
// and writes to the other. A port is a listener, its backend, its options, its pairs and its counters; what of it is on
// one event loop is its share there.
//
// # The loop
//
// Everything happens on the event loops of internal/eventloop, which says in which order: new connections first, then
// what is small, then a slice of what is large. There is no goroutine, timer, buffer or pipe per connection: an idle pair
// is two descriptors and one small struct. All ports accept on the first loop; a connection goes to the loop that has the
// least to do, and may be moved to another later.
//
// # The life of a pair
//
// The two tables are what the code has (pairState.after, pumpState.after; TestStates compares them). What is not in them
// changes no state.
//
//	state                        event                next
//
//	expecting                    clientKnown          dialing   its PROXY header is complete, or none is expected
//	dialing                      backendConnected     relaying
//	relaying                     legReset             parting   a leg was reset after its end had come
//	relaying                     legFailed            aborting
//	parting, aborting            delivered            flushing  both pumps are over
//	parting, aborting, flushing  legFailed            lost      the other leg, too
//	any                          gone                 closed    in order, refused, too late, acknowledged, lost, reset
//
// An expecting pair waits for the PROXY header that its client begins with (Options.AcceptProxyProtocol). Its bytes stay in
// the socket, and are looked at (MSG_PEEK), until it is complete. Where it is missing or wrong the client is reset.
//
// A dialing pair waits for connect(2), on a socket that is bound to the client's address if the backend is to see that
// (Options.Transparent, package transparent); a client that cannot be shown is reset before. The client is not read, but watched for errors: if it resets, the dial
// ends. A dial that fails resets the client.
//
// A relaying pair has both pumps running. If the backend is to be told who the client is (Options.ProxyProtocol), a
// header is written first, whether the client has sent something or not, and if so in one send with it; what of it the
// backend does not take waits like all that a pump holds. A client that has only just been accepted and has sent
// nothing has until the end of the loop's turn for it.
//
// End of file on one leg shuts down the write side of the other, once every byte before it has left; the opposite direction
// goes on.
//
// In an aborting pair a leg has failed (reset, keepalive). What that leg delivered before goes on to the other; when
// the other's peer has acknowledged all of it, or after flushTimeout, it is reset too. So an abort never looks
// like an ordinary end, and an ordinary end never becomes a reset: a leg that had ended in order before it was
// reset (EPIPE says so) has its end passed on first, without a time limit. That pair is parting.
//
// The end of the process is an abort, too: while a leg waits for bytes that are here, or is sent a stream, its socket is
// set so that the kernel resets it when it closes it (SO_LINGER with a time of zero).
//
// A relaying or parting pair may go to another loop (Move), in the state that it is in. A pair is reset, whatever its state, when
// epoll cannot watch it for what it waits for, and when its port is aborted. One whose client goes before it relays is closed.
//
// # The states of a pump
//
//	state          verdict                                               next
//
//	empty          more                                                  queued   more than is small
//	queued         awaitSource, departed                                 empty
//	empty, queued  awaitDestination                                      holding
//	holding        more                                                  empty    all has left
//	any            finished, sourceFailed, destinationFailed, abandoned  over
//
// An empty pump has its source read at an event. What is small moves at once; what is more, or comes on a connection that
// streams, goes to a queue of the loop in slices, until the source has nothing more or the destination is full: to that of what
// is short, which does not wait for the streams' turns, and from half a megabyte on to that of streams. A pump that
// holds bytes does not read before all have left. Bytes are held in the loop's shared buffer within a step; copied ones
// that the destination did not take are moved to a chunk that fits them, spliced ones stay in the pipe. A pump has a
// pipe only while the pipe holds bytes. So a splice into a pipe that fails never fails because the pipe is full, and a
// pump at rest costs no pipe. A pipe that held bytes when its pump was abandoned is closed, never used again.
//
// # Edges
//
// Legs are registered once, edge-triggered: epoll tells a change once, and no state of a pump costs a system call.
// (Level-triggered, the kernel would look at every socket once more after its event, to find nothing: 6% of the proxy's
// time with 64 clients.) So whoever leaves something in a source must know that it will be told again, or look by himself:
//
//   - A step that ends with a short recv leaves nothing. What comes afterwards makes an event of its own. The end of the
//     stream, a reset and urgent data may have come before the recv; but then the event said so (EPOLLRDHUP, EPOLLPRI,
//     EPOLLHUP, EPOLLERR), and the source is read until it has nothing.
//   - Events of the source of a pump that is queued or holds bytes are not heard. When its turn comes, or all has left,
//     it reads until the source has nothing.
//   - Whether there is room is asked only of a leg that has been full: epoll would begin by saying so of every other.
//     The registration is changed when a leg is full for the first time, which has epoll look anew.
//   - A pair that comes to another loop is registered there for the first time, which has epoll look anew, too.
package splice
