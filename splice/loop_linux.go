package splice

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxEvents is how many ready descriptors one epoll_wait may return.
const maxEvents = 128

// tick is how often the loop looks after what has no event of its own: the deadline of a dial, a listener that
// paused, a leg whose last bytes are not acknowledged yet. An idle loop does not tick.
const tick = 10 * time.Millisecond

// loop is the event loop. All of its fields but tasks and stats belong to its goroutine.
type loop struct {
	kernel kernel
	epoll  int
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
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("splice: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		closeFD(epoll)
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
		closeFD(epoll)
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
	events := make([]unix.EpollEvent, maxEvents)
	for !l.ended {
		n, err := unix.EpollWait(l.epoll, events, l.timeout())
		if err != nil && err != unix.EINTR {
			// Only a descriptor that is none, or memory that is not ours, can bring this about.
			panic(fmt.Sprintf("splice: epoll_wait: %v", err))
		}
		for _, ev := range events[:max(n, 0)] {
			if s := l.slots.at(int(ev.Fd)); s.generation == ev.Pad && s.handler != nil {
				s.handler.ready(ev.Events)
			}
		}
		l.tick()
		l.measure(n <= 0)
	}
	l.closeAll()
	l.pipes.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	closeFD(l.wake)
	l.wake = -1
	closeFD(l.epoll)
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
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: s.generation}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		s.handler = nil
		return fmt.Errorf("splice: epoll_ctl: %w", err)
	}
	return nil
}

// rewatch changes what a registered descriptor is watched for. It cannot fail for a descriptor that is open
// and registered.
func (l *loop) rewatch(fd int, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.slots.at(fd).generation}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		panic(fmt.Sprintf("splice: epoll_ctl: descriptor %d is not watched: %v", fd, err))
	}
}

// unwatch takes a descriptor out of epoll. Events of it that are still in the batch are dropped.
func (l *loop) unwatch(fd int) {
	l.slots.at(fd).generation++
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		panic(fmt.Sprintf("splice: epoll_ctl: descriptor %d is not watched: %v", fd, err))
	}
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
