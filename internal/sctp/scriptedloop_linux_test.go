package sctp

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// What the loop of a world does.

type watch struct {
	handler eventloop.Handler
	events  uint32
	edge    bool // it may be told, although it is watched by edges
	gone    bool
}

type alarm struct {
	ringer eventloop.Ringer
	at     time.Duration
}

// turn is one of the loop. It reports whether anything was told or run.
func (w *world) turn() (busy bool) {
	type event struct {
		of     *watch
		events uint32
	}
	var ready []event
	fds := make([]int, 0, len(w.watched))
	for fd := range w.watched {
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	for _, fd := range fds {
		of := w.watched[fd]
		events := w.sockets[fd].level() & (of.events | unix.EPOLLERR | unix.EPOLLHUP)
		if events == 0 || of.events&unix.EPOLLET != 0 && !of.edge {
			continue
		}
		of.edge = false
		ready = append(ready, event{of, events})
	}
	for _, ev := range ready {
		if !ev.of.gone {
			w.events++
			ev.of.handler.Ready(ev.events)
		}
	}
	if len(w.queue) > 0 {
		r := w.queue[0]
		before := w.slices
		verdict := r.Run()
		if w.slices != before+1 {
			w.t.Error("a slice is not counted as one of a stream")
		}
		w.queue = w.queue[1:]
		if verdict == eventloop.Next {
			w.queue = append(w.queue, r)
		}
		return true
	}
	return len(ready) > 0
}

// quiet takes turns until nothing is told any longer. A loop that spins fails the test.
func (w *world) quiet() {
	w.t.Helper()
	for range 300 {
		if !w.turn() {
			return
		}
	}
	w.t.Fatal("the loop spins")
}

// pass has time go by, and rings what is due.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.now += d
	for {
		var due *alarm
		for timer, a := range w.timers {
			if a.at <= w.now {
				due = a
				delete(w.timers, timer)
				break
			}
		}
		if due == nil {
			break
		}
		due.ringer.Ring(w.now)
	}
	w.quiet()
}

func (w *world) Watch(fd int, events uint32, h eventloop.Handler) (eventloop.Handle, error) {
	if w.refuse != nil {
		return eventloop.Handle{}, w.refuse
	}
	if w.watched[fd] != nil {
		w.t.Errorf("descriptor %d is watched twice", fd)
	}
	w.watched[fd] = &watch{handler: h, events: events, edge: true}
	return eventloop.Handle{}, nil
}

func (w *world) Rewatch(_ eventloop.Handle, fd int, events uint32) error {
	if w.refuse != nil {
		return w.refuse
	}
	w.watched[fd].events, w.watched[fd].edge = events, true
	return nil
}

func (w *world) Unwatch(_ eventloop.Handle, fd int) {
	w.watched[fd].gone = true
	delete(w.watched, fd)
}

// Forget has only the handle, of which tests have none: it finds the leg that is closed next, the client's first.
func (w *world) Forget(eventloop.Handle) {
	found := -1
	for fd, of := range w.watched {
		if l, is := of.handler.(*leg); is && l.pair.state == ended && (found < 0 || l == &l.pair.frontend) {
			found = fd
		}
	}
	if found < 0 {
		w.t.Error("a handle is forgotten that is none of a pair that has ended")
		return
	}
	w.Unwatch(eventloop.Handle{}, found)
}

func (w *world) SetTimer(t *eventloop.Timer, r eventloop.Ringer, at time.Duration) {
	w.timers[t] = &alarm{r, at}
}
func (w *world) StopTimer(t *eventloop.Timer) { delete(w.timers, t) }
func (w *world) Enqueue(r eventloop.Runner) {
	if slices.Contains(w.queue, r) {
		w.t.Error("a runner is in the queue twice")
	}
	w.queue = append(w.queue, r)
}
func (w *world) Dequeue(r eventloop.Runner) {
	w.queue = slices.DeleteFunc(w.queue, func(o eventloop.Runner) bool { return o == r })
}
func (w *world) Stream(eventloop.Handle, uint32)         { w.slices++ }
func (w *world) Join(eventloop.Handle, eventloop.Handle) {}
func (w *world) Now() time.Duration                      { return w.now }
func (w *world) More()                                   {}
func (w *world) Do(f func()) bool                        { f(); return true }
