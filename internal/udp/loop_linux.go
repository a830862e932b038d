package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/yield"
)

const (
	// maxEvents is how many ready sockets one turn looks at.
	maxEvents = 128

	// trimAfter is how long the loop is idle before it gives the pages of its buffers back. It is far longer than the
	// pauses of traffic that goes on, for which they would be taken again: 0.25 us for each.
	trimAfter = time.Second
)

// Loop carries the datagrams of one published port on one event loop. All of its fields but those after mu, and the
// atomic ones, belong to the goroutine of Serve.
type Loop struct {
	frontend       int
	frontendFamily uint16
	backend        netip.AddrPort
	backendFamily  int
	address        unix.Sockaddr // the backend's
	options        Options
	now            func() time.Duration // stopwatch
	kernel         kernel
	count          counters

	epoll, wake int // wake is an eventfd: tasks are waiting
	events      [maxEvents]unix.EpollEvent
	in          intake
	out         outbox
	arena       arena // holds what the messages of in and out point to

	turn      uint32        // one epoll_wait and what follows from it
	time      time.Duration // when it began
	depth     depth         // of the frontend
	requests  bool          // the frontend is ready
	lost      atomic.Uint32 // datagrams that the frontend had no room for, as last told; Stats asks, too
	pace      backoff       // of a frontend that fails
	paused    bool          // it is not watched for now
	resume    time.Duration // when to watch it again
	flows     table[flowKey, *flow]
	sockets   sockets
	nextSweep time.Duration // when flows may have expired, if there are any
	sweepBy   time.Duration // when a sweep that was put off is at last; zero: none was
	busy      bool          // the turn before had events
	yields    yield.Policy
	ended     bool

	mu      sync.Mutex
	tasks   []func()
	serving bool
	done    chan struct{} // closed when the loop has ended, and wake is closed
}

// NewLoop returns a relay from frontend, a bound socket, to backend. The loop owns the descriptor from then on, also
// when NewLoop fails.
func NewLoop(frontend int, backend netip.AddrPort, o Options) (*Loop, error) {
	l, err := newLoop(frontend, backend, o)
	if err != nil {
		closeFD(frontend)
		return nil, err
	}
	return l, nil
}

func newLoop(frontend int, backend netip.AddrPort, o Options) (*Loop, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if backend, err = checkBackend(backend); err != nil {
		return nil, err
	}
	l := &Loop{
		frontend: frontend,
		backend:  backend,
		options:  o,
		now:      stopwatch(),
		kernel:   linux{},
		epoll:    -1,
		wake:     -1,
		flows:    newTable[flowKey, *flow](),
		turn:     1, // so that no socket seems to have been asked in the turn before
		done:     make(chan struct{}),
	}
	if err := l.open(); err != nil {
		l.close()
		return nil, fmt.Errorf("udp: relay to %v: %w", backend, err)
	}
	return l, nil
}

// open opens what the loop needs besides the frontend, and makes that ready.
func (l *Loop) open() (err error) {
	if l.backendFamily, l.address, err = encode(l.backend); err != nil {
		return err
	}
	if l.frontendFamily, err = familyOf(l.frontend); err != nil {
		return err
	}
	if err := readyFrontend(l.frontend); err != nil {
		return err
	}
	tune(l.frontend, frontendBuffer)
	if l.arena, err = newArena(); err != nil {
		return err
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return sysError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return sysError("eventfd", err)
	}
	return errors.Join(l.watch(l.wake), l.watch(l.frontend))
}

// watch registers a descriptor with epoll, to be told of what there is to receive.
func (l *Loop) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return sysError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// Serve relays until Close, and then returns nil. It is called once.
func (l *Loop) Serve() error {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil
	}
	l.serving = true
	l.mu.Unlock()
	defer l.end()
	for !l.ended {
		if err := l.serveTurn(); err != nil {
			return err
		}
	}
	return nil
}

// serveTurn waits for events and serves them: replies before requests, because each reply was a request before.
func (l *Loop) serveTurn() error {
	n, err := l.wait()
	if err != nil {
		return fmt.Errorf("udp: relay to %v: %w", l.backend, sysError("epoll_wait", err))
	}
	l.time = l.now()
	l.turn++
	for i := range l.events[:n] {
		l.ready(l.events[i].Fd)
	}
	l.flush(l.frontend, toClients)
	more := n == maxEvents
	if l.requests {
		l.requests = false
		more = l.receiveRequests() || more
	}
	l.keepTime(n == 0, more)
	return nil
}

// wait returns how many events there are. Before it sleeps it lets clients and backends run, where that pays: they send
// more before the loop is woken, which is what sleeping and waking cost most of all.
func (l *Loop) wait() (int, error) {
	if l.busy {
		if n := l.yields.Try(func() int { return poll(l.epoll, l.events[:]) }); n > 0 {
			return n, nil
		}
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], l.timeout())
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	l.busy = n > 0
	return n, err
}

// ready leads an event to what it is for.
func (l *Loop) ready(fd int32) {
	switch int(fd) {
	case l.frontend:
		l.requests = true
	case l.wake:
		l.runTasks()
	default:
		if f := *l.sockets.at(fd); f != nil {
			l.receiveReplies(f)
		}
	}
}

// timeout is for epoll_wait, in milliseconds: until the first thing that waits for time to pass, if any does.
func (l *Loop) timeout() int {
	wait := time.Duration(math.MaxInt64)
	if l.flows.len() > 0 {
		wait = l.nextSweep - l.time
	}
	if l.paused {
		wait = min(wait, l.resume-l.time)
	}
	if l.arena.written {
		wait = min(wait, trimAfter)
	}
	if wait == math.MaxInt64 {
		return -1
	}
	// Rounded up, so that the time has come when epoll_wait returns.
	return int(min(max(wait+time.Millisecond-1, 0)/time.Millisecond, math.MaxInt32))
}

// keepTime does what had to wait until now. There may be more to receive than this turn has looked at.
func (l *Loop) keepTime(idle, more bool) {
	if idle && l.arena.written {
		l.arena.trim()
	}
	if l.paused && l.time >= l.resume {
		l.resumeFrontend()
	}
	if l.flows.len() > 0 && l.time >= l.nextSweep && !l.putOff(more) {
		l.sweep()
	}
}

// putOff tells whether a sweep that is due is to wait for another turn. When the process stood still for long, flows
// seem idle whose datagrams are only not read yet. Under load that never ends flows are not kept for longer than they
// may be without it.
func (l *Loop) putOff(more bool) bool {
	if !more {
		return false
	}
	if l.sweepBy == 0 {
		l.sweepBy = l.time + l.options.Timeout/8
	}
	return l.time < l.sweepBy
}

// sweep forgets the flows that have been idle for the timeout.
func (l *Loop) sweep() {
	for _, f := range l.flows.expire(l.time - l.options.Timeout) {
		l.count.expired.Add(1)
		l.closeFlow(f)
	}
	l.sweepBy = 0
	l.nextSweep, _ = l.flows.due(l.time, l.options.Timeout)
}

// Stats returns the counts.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	if l.wake >= 0 { // the frontend is open
		l.countLostBy(l.frontend, &l.lost)
	}
	l.mu.Unlock()
	return l.count.read()
}

// Close ends Serve, closes the frontend and every flow, and returns when that is done.
func (l *Loop) Close() error {
	l.mu.Lock()
	if l.serving {
		l.post(func() { l.ended = true })
		l.mu.Unlock()
		<-l.done
		return nil
	}
	first := !l.ended
	l.ended = true
	l.mu.Unlock()
	if first {
		l.end()
	}
	return nil
}

// post has f run on the loop's goroutine; l.mu is held. It has no effect once the loop has ended.
func (l *Loop) post(f func()) {
	l.tasks = append(l.tasks, f)
	if l.wake < 0 {
		return
	}
	// It can only fail when so many are waiting already that the eventfd's counter is full.
	_, _ = unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

func (l *Loop) runTasks() {
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:]) // EAGAIN would mean that it is zero already, which is what is wanted
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	l.mu.Unlock()
	for _, task := range tasks {
		task()
	}
}

// end closes everything.
func (l *Loop) end() {
	for _, f := range l.flows.drain() {
		l.closeFlow(f)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
	l.countLostBy(l.frontend, &l.lost)
	closeFD(l.frontend)
	close(l.done)
}

// close closes what open opened.
func (l *Loop) close() {
	for _, fd := range []*int{&l.epoll, &l.wake} {
		if *fd >= 0 {
			closeFD(*fd)
			*fd = -1
		}
	}
	l.arena.release()
}
