package sctp

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxEvents is how many ready descriptors one epoll_wait may return.
const maxEvents = 128

// maxAccepts is how many clients are accepted before those that are there have their turn.
const maxAccepts = 16

// briefWait is how long the loop waits for more, in milliseconds, before it tells the Go scheduler: the least that
// epoll_wait knows. Meanwhile nothing else runs on its processor, and a garbage collection waits.
const briefWait = 1

// loop is the event loop of a relay. It belongs to the goroutine of Serve.
type loop struct {
	relay    *Relay
	patience patience
	epoll    int
	busy     bool   // the last wait gave events
	legs     []*leg // by descriptor
	closing  []socket
	batches  batches
	alarms   alarms
	start    time.Time // alarms count from here

	resume alarm         // of a listener that rests
	pause  time.Duration // that it rests for next time
}

// socket is one that is to be closed after the turn: until then its number is not used again, and no event that epoll
// has given already can be taken for another socket's.
type socket struct {
	fd    int
	abort bool
}

// now is the time since the loop's start.
func (l *loop) now() time.Duration { return time.Since(l.start) }

// run serves events until the relay is closed.
func (l *loop) run() error {
	events := make([]unix.EpollEvent, maxEvents)
	for {
		n, err := l.wait(events)
		if err != nil {
			return err
		}
		for _, ev := range events[:n] {
			switch fd := int(ev.Fd); fd {
			case l.relay.stop:
				return nil
			case l.relay.listener:
				l.accept()
			default:
				if of := l.legs[fd]; of != nil {
					of.pair.ready(of, ev.Events)
				}
			}
		}
		if l.alarms.any() { // or the clock need not be read
			l.alarms.ring(l.now())
		}
		l.closeSockets()
	}
}

// wait waits for events. While there is traffic the next event is near: then the Go scheduler is not told of the wait. It
// would take the processor away from the loop after 20 us, and wake a thread of its own to watch over it.
func (l *loop) wait(events []unix.EpollEvent) (n int, err error) {
	if l.busy {
		n, err = epollWait(l.epoll, events, min(briefWait, uint(l.timeout())))
	}
	if n == 0 && err == nil {
		n, err = unix.EpollWait(l.epoll, events, l.timeout())
	}
	l.busy = n > 0
	if err != nil && !errors.Is(err, unix.EINTR) {
		return 0, os.NewSyscallError("epoll_wait", err)
	}
	return max(n, 0), nil
}

// timeout is for epoll_wait, in milliseconds: rounded up, so that the wait is not over before its time.
func (l *loop) timeout() int {
	if !l.alarms.any() {
		return -1
	}
	left := max(l.alarms.next()-l.now(), 0)
	return int((left + time.Millisecond - 1) / time.Millisecond)
}

// own leads the events of a leg's socket to it.
func (l *loop) own(of *leg) {
	if missing := of.fd + 1 - len(l.legs); missing > 0 {
		l.legs = append(l.legs, make([]*leg, missing)...)
	}
	l.legs[of.fd] = of
}

// watch registers a descriptor with epoll.
func (l *loop) watch(fd int, events uint32) error { return l.control(unix.EPOLL_CTL_ADD, fd, events) }

// rewatch changes what a registered descriptor is watched for.
func (l *loop) rewatch(fd int, events uint32) error { return l.control(unix.EPOLL_CTL_MOD, fd, events) }

// unwatch takes a descriptor out of epoll.
func (l *loop) unwatch(fd int) error { return l.control(unix.EPOLL_CTL_DEL, fd, 0) }

func (l *loop) control(op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, op, fd, &ev))
}

// closeLater closes a socket when the turn is over.
func (l *loop) closeLater(fd int, abort bool) {
	l.legs[fd] = nil
	l.closing = append(l.closing, socket{fd, abort})
}

func (l *loop) closeSockets() {
	for _, s := range l.closing {
		if s.abort {
			closeWithAbort(s.fd)
		} else {
			closeFD(s.fd)
		}
	}
	l.closing = l.closing[:0]
}

// closeAll aborts every association, also one that would have ended in order: what was in flight is lost.
func (l *loop) closeAll() {
	for _, of := range l.legs {
		if of != nil && of.fd >= 0 {
			of.pair.abort()
		}
	}
	l.closeSockets()
}
