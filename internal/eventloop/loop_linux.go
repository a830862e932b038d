package eventloop

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// restAfter is how long a loop has nothing to do before it gives its thread back.
	restAfter = time.Second

	// briefly is how long a busy loop waits, in milliseconds, before it tells the Go scheduler that it does: the least
	// that epoll_wait knows. It is not done again for up to longestVain waits where it has been in vain: the scheduler's
	// monitor wakes every 20 us meanwhile.
	briefly     = 1
	longestVain = 63
)

// brief says when it pays to wait briefly. Its zero value is ready.
type brief struct{ skip, vain int }

func (b *brief) pays() bool {
	if b.skip > 0 {
		b.skip--
		return false
	}
	return true
}

func (b *brief) learn(found bool) {
	b.vain = min(2*b.vain+1, longestVain)
	if found {
		b.vain = 0
	}
	b.skip = b.vain
}

// ErrClosed is what a loop answers that has ended.
var ErrClosed = errors.New("the event loop has ended")

// Loop is an event loop. Its methods are for its own goroutine (handlers, tasks, runners and timers run there), but for
// Listen, Unlisten, Post, Do and Load, which are for any.
type Loop struct {
	group  *Group
	number int  // among the group's loops; the first is 0
	extra  bool // it is beyond GOMAXPROCS, and adds to it
	epoll  *epoll
	slots  table
	timers deadlines
	passed time.Duration // when a deadline was first seen to have passed, and not acted on; zero: none
	yields yields
	brief  brief
	load   load

	streams, short queue
	ranShort       bool // the last slice was of short

	// What is of the turn.
	now    time.Duration // when somebody first asked
	fresh  bool          // somebody did
	more   bool          // there may be events that were not looked at
	single bool          // there was one event
	late   []TurnEnder

	quiet time.Duration // how long nothing has happened
	busy  bool          // the last wait gave events
	ended bool

	mu      sync.Mutex
	shared  table // what other goroutines have registered
	tasks   []func()
	wake    int // eventfd: tasks are waiting; -1 when the loop has ended
	running bool
	atEnd   []func()
	done    chan struct{} // closed when the loop has ended
}

// TurnEnder is told when all events of a turn were heard.
type TurnEnder interface{ TurnEnd() }

func newLoop(g *Group, number int) (*Loop, error) {
	epoll, err := newEpoll()
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		closeFD(epoll.fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{group: g, number: number, epoll: epoll, wake: wake, done: make(chan struct{})}
	if err := l.epoll.control(unix.EPOLL_CTL_ADD, wake, unix.EPOLLIN, l.shared.takeShared((*waker)(l))); err != nil {
		closeFD(epoll.fd)
		closeFD(wake)
		return nil, err
	}
	return l, nil
}

// start runs the loop, if it does not yet; l.mu is held. The first loop's start is put off until it has something to
// do, so that a port is served without waiting for a thread: half a millisecond of the 2.5 from exec to ready.
func (l *Loop) start() {
	if !l.running {
		l.running = true
		go l.run()
	}
}

// run takes turns until the loop is told to end. It is tied to no thread: Go's monitor has a goroutine that has run for 10 ms
// make way for others (forcePreemptNS in runtime/proc.go), and one that is tied goes on only when another thread has handed it back.
func (l *Loop) run() {
	defer close(l.done)
	if l.extra {
		addProcessors(1)
		defer addProcessors(-1)
	}
	l.quiet = restAfter // nothing is expected yet
	for !l.ended {
		l.turn()
	}
	l.mu.Lock()
	l.deafen()
	tasks := l.tasks
	l.mu.Unlock()
	for _, f := range tasks {
		f()
	}
	for _, f := range l.atEnd {
		f()
	}
	closeFD(l.epoll.fd)
	if l.number > 0 {
		// A thread ends with the loop, unless it is the process's first, which Go keeps. (For that the runtime starts one more, to
		// start others from: the first loop, which ends with its group, does without.)
		runtime.LockOSThread()
	}
}

// deafen has Post and Listen fail from now on; l.mu is held.
func (l *Loop) deafen() {
	if l.wake >= 0 {
		closeFD(l.wake)
		l.wake = -1
	}
}

func (l *Loop) hasEnded() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// turn is described in the package documentation.
func (l *Loop) turn() {
	l.load.begin(l.group)
	ready := l.look()
	l.now, l.fresh = l.load.looked(l.group)
	l.more, l.single = len(ready) == maxEvents, len(ready) == 1
	l.dispatch(ready)
	for i := 0; i < len(l.late); i++ { // more may come to it
		l.late[i].TurnEnd()
	}
	clear(l.late)
	l.late = l.late[:0]
	l.ring()
	l.runSlice()
	l.measure()
}

// look gives what is ready. It waits only if there is nothing else to do.
func (l *Loop) look() []unix.EpollEvent {
	if l.streams.first() != nil || l.short.first() != nil || l.passed != 0 || len(l.late) > 0 {
		return l.epoll.poll()
	}
	if ready := l.yields.try(l.epoll.poll); len(ready) > 0 {
		return ready
	}
	timeout := l.timeout()
	var ready []unix.EpollEvent
	switch {
	case l.busy && uint64(timeout) >= uint64(briefly*time.Millisecond) && l.brief.pays(): // below zero is for ever
		ready = l.epoll.raw(briefly)
		l.brief.learn(len(ready) > 0)
	case l.number == 0 && l.quiet >= restAfter && uint64(timeout) >= uint64(restAfter):
		ready = l.epoll.rest(timeout)
	default:
		if ready = l.epoll.wait(timeout); len(ready) == 0 {
			l.quiet += max(timeout, 0)
			l.load.skip = 0
		}
	}
	l.busy = len(ready) > 0
	if l.busy {
		l.quiet = 0
	}
	return ready
}

// timeout is how long to wait; below zero is for ever.
func (l *Loop) timeout() time.Duration {
	wait := time.Duration(-1)
	switch {
	case l.number > 0 || l.load.percent.Load() > 0 || l.group.quiet.Load() == l: // it is to be found out that it has nothing to do
		wait = loadWindow
	case l.quiet < restAfter:
		wait = restAfter
	}
	if len(l.timers) > 0 {
		next := max(l.timers[0].at-l.Now(), 0)
		if wait < 0 || next < wait {
			wait = next
		}
	}
	return wait
}

// dispatch leads events to their handlers: those of listeners and tasks first. An event whose handle has been given back,
// by an earlier one of the batch, is dropped.
func (l *Loop) dispatch(ready []unix.EpollEvent) {
	for i := range ready {
		if h := handleOf(&ready[i]); h.shared() {
			if handler := l.sharedHandler(h); handler != nil {
				handler.Ready(ready[i].Events)
			}
		}
	}
	for i := range ready {
		if h := handleOf(&ready[i]); !h.shared() {
			if s := l.slots.find(h); s != nil {
				l.slots.count(s, 1)
				s.handler.Ready(ready[i].Events)
			}
		}
	}
}

// Single says whether the turn has one event only.
func (l *Loop) Single() bool { return l.single }

// More notes that a handler has left something behind that it will be told of again: deadlines wait for it.
func (l *Loop) More() { l.more = true }

// AtTurnEnd has e told when all events of this turn were heard; of the next one, which does not wait for any, if they were
// already. It is called once for each time that it is asked for.
func (l *Loop) AtTurnEnd(e TurnEnder) { l.late = append(l.late, e) }

// AtEnd has f called, on the loop's goroutine, when the loop ends. It is for what a protocol keeps for the loop.
func (l *Loop) AtEnd(f func()) { l.atEnd = append(l.atEnd, f) }

// Watch registers a descriptor, of which the loop is not the owner, for events; errors and hang-ups are told at all
// times. It fails with what epoll_ctl(2) answers: ENOMEM, ENOSPC, or EPERM for what cannot be watched.
func (l *Loop) Watch(fd int, events uint32, h Handler) (Handle, error) {
	handle := l.slots.take(h)
	if err := l.epoll.control(unix.EPOLL_CTL_ADD, fd, events, handle); err != nil {
		l.slots.give(handle)
		return Handle{}, err
	}
	return handle, nil
}

// Rewatch changes what a registered descriptor is watched for. Epoll looks anew, whether or not that is a change.
func (l *Loop) Rewatch(h Handle, fd int, events uint32) error {
	return l.epoll.control(unix.EPOLL_CTL_MOD, fd, events, h)
}

// Unwatch ends a registration, and drops the events that are left of it.
func (l *Loop) Unwatch(h Handle, fd int) {
	l.Forget(h)
	_ = l.epoll.control(unix.EPOLL_CTL_DEL, fd, 0, h) // it fails if the descriptor is not registered, which is what is wanted
}

// Forget is Unwatch for a descriptor that is about to be closed, which takes it out of epoll.
func (l *Loop) Forget(h Handle) { l.slots.give(h) }

// Charge counts work for a registered handler that was done outside of its events. One unit is about an event's.
func (l *Loop) Charge(h Handle, units uint32) {
	if s := l.slots.find(h); s != nil {
		l.slots.count(s, units)
	}
}

// Discount takes back what was counted for the event that a handler, or one that is joined with it, is being told, and that
// had nothing done.
func (l *Loop) Discount(h Handle) {
	if s := l.slots.find(h); s != nil && s.units() > 0 {
		s.work--
	}
}

// Stream is Charge for what is a stream's: a slice, or the end of its turn.
func (l *Loop) Stream(h Handle, units uint32) {
	l.load.streamed = true
	if s := l.slots.find(h); s != nil {
		l.slots.count(s, units).work |= streamed
	}
}

// Join has the events of a handle, part, be counted as the work of another, with which it moves to other loops: load is
// shared by what moves. It does nothing if one of them is not registered.
func (l *Loop) Join(part, whole Handle) {
	if s := l.slots.find(part); s != nil {
		s.whole = whole
	}
}

// Work is how much was counted for a handle since its loop has been busy. It is for tests.
func (l *Loop) Work(h Handle) uint32 {
	if s := l.slots.find(h); s != nil {
		return s.units()
	}
	return 0
}

// Streams says whether some of it was a stream's. It is for tests.
func (l *Loop) Streams(h Handle) bool {
	s := l.slots.find(h)
	return s != nil && s.is(streaming)
}

// Listen is Watch for any goroutine. The handler's events come before all others in a turn. It is for what brings new
// work: listeners, and the sockets that clients send to; and for what is rare.
func (l *Loop) Listen(fd int, events uint32, h Handler) (Handle, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake < 0 {
		return Handle{}, ErrClosed
	}
	handle := l.shared.takeShared(h)
	if err := l.epoll.control(unix.EPOLL_CTL_ADD, fd, events, handle); err != nil {
		l.unlisten(handle)
		return Handle{}, err
	}
	l.start()
	return handle, nil
}

// Unlisten ends a registration by Listen, from any goroutine. The handler may still be running.
func (l *Loop) Unlisten(h Handle, fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlisten(h)
	if l.wake >= 0 {
		_ = l.epoll.control(unix.EPOLL_CTL_DEL, fd, 0, h) // as in Unwatch
	}
}

func (l *Loop) unlisten(h Handle) { l.shared.give(h.unshared()) }

func (l *Loop) sharedHandler(h Handle) Handler {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.shared.find(h.unshared()); s != nil {
		return s.handler
	}
	return nil
}

// Post has f run on the loop's goroutine, in the order of the calls. It reports false when the loop has ended: f does
// not run then.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake < 0 {
		return false
	}
	l.start()
	l.tasks = append(l.tasks, f)
	if len(l.tasks) == 1 { // or the loop was told already
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(l.wake, one[:]) // the counter is small: there is room
	}
	return true
}

// Do runs f on the loop's goroutine and waits for it. It reports false when the loop has ended before. It must not be
// called on a loop's goroutine.
func (l *Loop) Do(f func()) bool {
	ran := make(chan struct{})
	if !l.Post(func() { f(); close(ran) }) {
		return false
	}
	<-ran // a task that was posted runs, at the loop's end if not before
	return true
}

// waker runs the tasks that other goroutines gave the loop.
type waker Loop

// Ready runs them.
func (w *waker) Ready(uint32) {
	var count [8]byte
	// EAGAIN would mean that the counter is zero already, which is what is wanted.
	_, _ = unix.Read(w.wake, count[:])
	w.mu.Lock()
	tasks := w.tasks
	w.tasks = nil
	w.mu.Unlock()
	for _, task := range tasks {
		task()
	}
}
