package splice

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/yield"
)

// tick is how often the loop looks after what has no event of its own: the deadline of a dial, a listener that
// paused, a leg whose last bytes are not acknowledged yet. An idle loop does not tick.
const tick = 10 * time.Millisecond

// restAfter is how long a loop without connections keeps its thread waiting for the next one.
const restAfter = time.Second

// loop is the event loop. All of its fields but tasks and stats belong to its goroutine.
type loop struct {
	kernel kernel
	epoll  *epoll
	wake   int // eventfd: tasks are waiting
	slots  slots
	buf    []byte // what recv reads into; its content does not outlive a turn
	pipes  pipePool
	chunks chunkPool
	stats  counters

	addresses [2]unix.RawSockaddrAny // what accept and getsockname write to

	options  Options
	start    time.Time     // deadlines count from here
	nextTick time.Duration // since start
	dialing  pairList
	aborting pairList
	paused   []*acceptor // they wait for descriptors or memory
	ended    bool

	talked *pair // of the only event of the last wait; nil if there were several
	alone  bool  // and of the one before
	yields yield.Policy

	number   int // among the engine's loops; the first is 0
	load     load
	overload func(*loop) // called when the loop has been saturated for a while
	idle     func(*loop) // called when it has had little to do for a while; nil for the first
	heir     *loop       // takes the pairs over, so that this loop can end; nil while it is needed

	mu    sync.Mutex
	tasks []func()
	done  chan struct{} // closed when the loop has ended
}

// counters are written by the loop alone and read from anywhere.
type counters struct {
	accepted, active, acceptErrors, dialErrors, aborted, spliced, copied, pipesRefused, sourcePorts atomic.Uint64
}

// counted reads the counters.
func (l *loop) counted() Stats {
	s := &l.stats
	return Stats{
		Accepted:     s.accepted.Load(),
		Active:       s.active.Load(),
		AcceptErrors: s.acceptErrors.Load(),
		DialErrors:   s.dialErrors.Load(),
		Aborted:      s.aborted.Load(),
		Spliced:      s.spliced.Load(),
		Copied:       s.copied.Load(),
		Pipes:        l.pipes.open.Load(),
		PipesRefused: s.pipesRefused.Load(),
		SourcePorts:  s.sourcePorts.Load(),
	}
}

// plus adds the counters of two loops.
func (s Stats) plus(o Stats) Stats {
	return Stats{
		Accepted:     s.Accepted + o.Accepted,
		Active:       s.Active + o.Active,
		AcceptErrors: s.AcceptErrors + o.AcceptErrors,
		DialErrors:   s.DialErrors + o.DialErrors,
		Aborted:      s.Aborted + o.Aborted,
		Spliced:      s.Spliced + o.Spliced,
		Copied:       s.Copied + o.Copied,
		Pipes:        s.Pipes + o.Pipes,
		PipesRefused: s.PipesRefused + o.PipesRefused,
		SourcePorts:  s.SourcePorts + o.SourcePorts,
	}
}

func newLoop(number int, o Options) (*loop, error) {
	epoll, err := newEpoll()
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		epoll.close()
		return nil, fmt.Errorf("splice: eventfd: %w", err)
	}
	l := &loop{
		kernel:  linux{},
		epoll:   epoll,
		wake:    wake,
		buf:     make([]byte, copySize),
		number:  number,
		options: o,
		start:   time.Now(),
		done:    make(chan struct{}),
	}
	if err := l.watch(wake, unix.EPOLLIN, waker{l}); err != nil {
		epoll.close()
		closeFD(wake)
		return nil, err
	}
	return l, nil
}

// run serves events until the loop is told to end.
func (l *loop) run() {
	defer close(l.done)
	if l.number > 0 {
		// The thread ends with the loop. The first loop does without: the runtime would start a thread more, to
		// start others from, and that is paid for by every idle port.
		runtime.LockOSThread()
	}
	l.load.cpu = threadCPU()
	for timedOut := true; !l.ended; {
		ready := l.wait(timedOut)
		timedOut = len(ready) == 0
		l.dispatch(ready)
		l.tick()
		l.measure(timedOut)
	}
	l.closeAll()
	l.pipes.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	closeFD(l.wake)
	l.wake = -1
	l.epoll.close()
}

// dispatch leads events to their handlers, but for those of descriptors that an earlier one of the batch has closed.
func (l *loop) dispatch(ready []unix.EpollEvent) {
	for _, ev := range ready {
		if s := l.slots.at(int(ev.Fd)); s.generation == ev.Pad && s.handler != nil {
			s.handler.ready(ev.Events)
		}
	}
}

// wait gives what is ready. A port that nobody has used for a while, or not at all yet, does without a thread.
func (l *loop) wait(timedOut bool) []unix.EpollEvent {
	if timedOut && l.resting() {
		ready := l.epoll.rest()
		l.load.cpu = threadCPU() // it may be another thread's now
		return ready
	}
	ready := l.yield()
	if len(ready) == 0 {
		ready = l.epoll.wait(l.timeout())
	}
	l.hear(ready)
	return ready
}

// yield lets the peers of the one pair that talks run, and gives what is ready then. When several do there is enough to do
// on all CPUs, and to stay on this one would cost a tenth of the rate (64 clients, 64 B; 8 streams).
func (l *loop) yield() (ready []unix.EpollEvent) {
	if l.alone {
		l.yields.Try(func() int {
			ready = l.epoll.poll()
			return len(ready)
		})
	}
	return ready
}

// hear finds out whether one pair talks alone: the one of the only event now and the time before.
func (l *loop) hear(ready []unix.EpollEvent) {
	var talks *pair
	if len(ready) == 1 {
		if lg, ok := l.slots.at(int(ready[0].Fd)).handler.(*leg); ok {
			talks = lg.pair
		}
	}
	l.alone = talks != nil && talks == l.talked
	l.talked = talks
}

// resting says whether the loop has nothing to expect but connections.
func (l *loop) resting() bool {
	return l.idle == nil && l.stats.active.Load() == 0 && !l.ticking()
}

// ticking says whether anything waits for time to pass.
func (l *loop) ticking() bool {
	return !l.dialing.empty() || !l.aborting.empty() || len(l.paused) > 0 || l.heir != nil
}

// timeout is for epoll_wait, in milliseconds.
func (l *loop) timeout() int {
	switch {
	case l.ticking():
		return int(tick.Milliseconds())
	case l.idle != nil:
		return int(loadWindow.Milliseconds())
	case l.stats.active.Load() == 0:
		return int(restAfter.Milliseconds())
	}
	return -1
}

// tick looks after what waits for time to pass, at most once in that time. The clock is not read when nothing
// waits.
func (l *loop) tick() {
	if !l.ticking() {
		return
	}
	now := l.now()
	if now < l.nextTick {
		return
	}
	l.nextTick = now + tick
	for p := range l.dialing.all() { // in the order of their deadlines
		if now < p.deadline {
			break
		}
		p.dialFailed(sysError("connect", unix.ETIMEDOUT))
	}
	for p := range l.aborting.all() {
		p.checkFlush(now)
	}
	l.resumePaused()
	if l.heir != nil {
		l.bequeath()
	}
}

// now is the time since the loop's start.
func (l *loop) now() time.Duration { return time.Since(l.start) }

// do runs f on the loop's goroutine and waits for it. When the loop has ended, f does not run.
func (l *loop) do(f func()) {
	ran := make(chan struct{})
	l.post(func() { f(); close(ran) })
	select {
	case <-ran:
	case <-l.done:
	}
}

// post has f run on the loop's goroutine, in the order of the calls.
func (l *loop) post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, f)
	l.signal() // under the lock: the loop's end closes the eventfd under it
}

// signal makes epoll_wait return; l.mu is held. It can only fail with EAGAIN, when so many signals are waiting
// already that the eventfd's counter is full.
func (l *loop) signal() {
	if l.wake < 0 {
		return // the loop has ended
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(l.wake, one[:])
}

// waker runs the tasks that other goroutines gave the loop.
type waker struct{ l *loop }

func (w waker) ready(uint32) {
	var count [8]byte
	// EAGAIN would mean that the counter is zero already, which is what is wanted.
	_, _ = unix.Read(w.l.wake, count[:])
	w.l.mu.Lock()
	tasks := w.l.tasks
	w.l.tasks = nil
	w.l.mu.Unlock()
	for _, task := range tasks {
		task()
	}
}

// watch registers a descriptor with epoll and leads its events to h.
func (l *loop) watch(fd int, events uint32, h handler) error {
	s := l.slots.at(fd)
	s.handler = h
	err := l.epoll.add(fd, events, s.generation)
	if err != nil {
		s.handler = nil
	}
	return err
}

// rewatch changes what a registered descriptor is watched for.
func (l *loop) rewatch(fd int, events uint32) { l.epoll.change(fd, events, l.slots.at(fd).generation) }

// unwatch takes a descriptor out of epoll. Events of it that are still in the batch are dropped.
func (l *loop) unwatch(fd int) {
	l.slots.at(fd).generation++
	l.epoll.remove(fd)
}

// forget drops the events of a descriptor that is about to be closed, which takes it out of epoll.
func (l *loop) forget(fd int) {
	s := l.slots.at(fd)
	s.handler = nil
	s.generation++
}

// closeAll closes every port and pair; what they had in flight is lost.
func (l *loop) closeAll() {
	for s := range l.slots.all() {
		switch h := s.handler.(type) {
		case *acceptor:
			l.forget(h.port.fd) // the descriptor is the engine's to close
		case *leg:
			h.pair.resetBoth() // an orderly end would make what is cut short look complete
		}
	}
}
