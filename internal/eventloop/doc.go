// Package eventloop is what TCP, UDP and SCTP wait on: epoll, queues of what wants to go on, deadlines, and as many loops
// as the load needs. What a protocol does with an event is its own; when it does it is decided here.
//
//	group, err := eventloop.New(eventloop.Options{})
//	...
//	handle, err := group.First().Listen(fd, unix.EPOLLIN, listener) // listener.Ready is called for events
//	...
//	group.Close()
//
// # A turn
//
// A loop is one goroutine that takes turns. The order in a turn is the fairness between what it carries:
//
//	look      epoll_wait; it waits only if the queues are empty and no deadline has passed
//	urgent    events of what was registered by Listen, and the tasks of other goroutines
//	events    all others: each handler does a bounded amount, and puts what would take long into a queue
//	turn end  what handlers put off until all events of the turn were heard (AtTurnEnd)
//	deadlines if one has passed and the queues were looked at since
//	slice     one of the runner at the head of the queue of streams, or of the other queue: where both have any, by turns
//	measure   every 50 ms; it may be followed by a step of giving handlers to another loop
//
// So a new connection or a small message waits for one slice at most, whatever the number of streams. A message of TCP
// that takes several slices is in the queue of what is short, and waits for one of a stream's before each of its own and of
// those before it, not for the turns of all streams. The queues are in user space: a stream that goes on costs no epoll_ctl. A
// stream keeps the head of its queue while it says Again, so that it may follow its destination until that is full; between its
// slices the loop looks for events.
//
// # Handles
//
// Epoll's data of a descriptor is the index of a slot and the slot's generation. The index is dense, so the table is as
// large as the number of registered descriptors, not as the largest of their numbers. The generation is raised when
// a slot is given back: an event that is left in the batch that gave it back finds another generation and is dropped.
// When a burst of descriptors has gone, the slots behind the last one in use are given back.
//
// # Time
//
// The clock is never believed before the queues. When a process stood still (SIGSTOP, a frozen cgroup, a suspended
// machine), deadlines have passed for which the answer is in a socket already. So a deadline that has passed is only noted
// at first; the loop looks for events without waiting; and the deadline is acted on once a look that began after the
// clock was read has left nothing behind. Under load that never ends it is acted on after the time overrun all the
// same. Now is read once in a turn at most, and only if somebody asks.
//
// # Load
//
// A loop is busy while it does not wait: in epoll_wait, or by a yield in its place (yield_linux.go). A group begins with one loop. One that is busy nearly always gives
// a part of its work to the loop that has the least to do, and if there is none a new one is started, up to
// GOMAXPROCS. Work is counted by handler, in slices and in events that had something done, so that it is load that is shared
// and not connections: one stream beside idle connections cannot be shared, and starts nothing. Handlers that can go to another loop are
// Movers; they are moved in steps, the first at once and the others from the queue of what is short. What moves with another descriptor is
// counted as one with it (Join). When fewer loops could carry the whole load with ease, the last one gives its handlers away and
// ends, and a thread with it.
//
// One loop may be the quiet one: where handlers with many events share a loop with streams that keep it busy, and half a loop
// is enough for them, they are moved to one that streams are kept from meanwhile. A thread that streams presumably waits for a
// CPU more often than one that sleeps between small messages. Beside many streams,
// or where the other loops are busy with something else, there may be one more than GOMAXPROCS then, if that is two or more and nobody has set it, in the environment or to fewer than there are CPUs. Go then has a processor more. When none is
// quiet any more the last loop ends, if there are more than may be then.
//
// The first loop is never ended. It has no thread of its own while nothing is expected of it: then it waits in Go's
// poller, and an idle port costs no thread.
package eventloop
