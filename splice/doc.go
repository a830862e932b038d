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
// The frontend is the host's side of a connection, the backend the container's. Each side is a leg: a
// descriptor and what epoll was told about it. Two legs are a pair. A pump moves the bytes of one direction;
// a pair has two, up (frontend to backend) and down.
//
// # The loop
//
// Everything happens on an event loop: one goroutine, epoll, non-blocking descriptors. There is
// no goroutine, timer, buffer or pipe per connection: an idle pair is two descriptors and one small struct.
//
// # The life of a pair
//
//	          accept             connected            both pumps finished
//	listener ───────▶ dialing ────────────▶ relaying ────────────────────▶ closed
//	                     │                     │                             ▲
//	                     │                     │ a leg failed                │
//	                     │                     ▼                             │
//	                     │                  aborting ── flushed, or too late ┤
//	                     └── refused, timed out, client gone ────────────────┘
//
// A dialing pair waits for connect(2). The client is not read, but watched for errors: if it resets, the dial
// ends. A dial that fails resets the client.
//
// A relaying pair has both pumps running. End of file on one leg shuts down the write side of the other, once
// every byte before it has left; the opposite direction goes on.
//
// An aborting pair had a leg fail (reset, keepalive). What that leg delivered before goes on to the other; when
// the other's peer has acknowledged all of it, or after flushTimeout, it is reset too. So an abort never looks
// like an ordinary end, and an ordinary end never becomes a reset: a leg that had ended in order before it was
// reset (EPIPE says so) has its end passed on first, without a time limit.
//
// # The states of a pump
//
//	        read                      the destination took all
//	empty ────────▶ holding ───────────────────────────────────▶ empty
//	  │               │  ▲
//	  │               └──┘ the destination is full: wait until it is writable,
//	  │                    and do not read before all has left
//	  └── end of file ──▶ finished
//
// Bytes are held in the loop's one shared buffer within a turn; what the destination did not take is moved to
// a chunk of the pump's own, or stays in the pipe it was spliced to. A pump owns a pipe only while the pipe
// holds bytes. So a splice into a pipe that fails never fails because the pipe is full, and a pump at rest costs
// no pipe. A pipe that held bytes when its pump was abandoned is closed, never used again.
//
// Interest follows state. A leg is watched for reading while the pump behind it is empty, for writing while
// the pump before it holds bytes, and for errors and hang-ups at all times, which nothing can turn off.
//
// # Edges
//
// Legs are watched edge-triggered: epoll tells a change once. Level-triggered, the kernel would look at every socket
// once more after its event, to find nothing: 6% of the proxy's time with 64 clients. So whoever leaves something in
// a source must know that it will be told again:
//
//   - A turn that ends with a short recv leaves nothing. What comes afterwards makes an event of its own. The end of the
//     stream, a reset and urgent data may have come before the recv; but then the event said so (EPOLLRDHUP, EPOLLPRI,
//     EPOLLHUP, EPOLLERR), and the turn reads until there is nothing.
//   - A turn that ends because it was long enough, or with a splice that a pipe full of small fragments cut short,
//     says so (pump.unread). The leg is registered again, which makes epoll look anew.
//   - While a pump waits for its destination its source is not watched for reading. When it is again, that is a
//     change of what is registered, and epoll looks anew.
//
// Listeners are level-triggered: each of their events accepts one connection.
package splice
