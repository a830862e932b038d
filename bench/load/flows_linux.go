package load

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/status"
)

const (
	// maxWindow bounds the datagrams that a client may have under way.
	maxWindow = 64
	// lossAfter is when a datagram without an answer is taken for lost: far more than any proxy needs.
	lossAfter = 200 * time.Millisecond
)

// flow is a client of UDP: a socket that asks and is answered.
type flow struct {
	fd       int
	waiting  int           // answers that are to come
	attempt  uint32        // counts the times that those were given up
	lastSeen time.Duration // of the client's clock
}

// flows asks and waits for answers on any number of sockets.
type flows struct {
	*poller
	recorder
	request request
	byFD    []*flow // nil: no flow
	opened  int
	begun   time.Time
	out, in *batch
	lost    int
}

func newFlows(r request) (*flows, error) {
	r.answer = cmp.Or(r.answer, r.size)
	if min(r.size, r.answer) < askSize || max(r.size, r.answer) > maxDatagram || r.window < 1 || r.window > maxWindow {
		return nil, fmt.Errorf("datagrams are from %d to %d bytes long and up to %d under way, not %d, %d and %d",
			askSize, maxDatagram, maxWindow, r.size, r.answer, r.window)
	}
	p, err := newPoller()
	return &flows{
		poller: p, recorder: newRecorder(), request: r, begun: time.Now(),
		out: newBatch(r.window, r.size), in: newBatch(r.window, r.answer+1), // one more, and what is longer is found
	}, err
}

// A datagram begins with when it was sent, by which flow, at which attempt, and how long its answer is to be.
const (
	answerAt = 8 + 4 + 4
	askSize  = answerAt + 2
)

func (a *flows) open() error {
	fd, err := dialUDP(sockaddr(a.request.to))
	if err != nil {
		return err
	}
	for fd >= len(a.byFD) {
		a.byFD = append(a.byFD, nil)
	}
	a.opened++
	a.byFD[fd] = &flow{fd: fd}
	return errors.Join(a.watch(fd, unix.EPOLLIN), a.ask(a.byFD[fd], 1))
}

// ask sends datagrams until so many are under way.
func (a *flows) ask(f *flow, window int) error {
	n := window - f.waiting
	now := time.Since(a.begun)
	for _, b := range a.out.buffers[:n] {
		binary.BigEndian.PutUint64(b, uint64(now))
		binary.BigEndian.PutUint32(b[8:], uint32(f.fd))
		binary.BigEndian.PutUint32(b[12:], f.attempt)
		binary.BigEndian.PutUint16(b[answerAt:], uint16(a.request.answer))
	}
	f.waiting, f.lastSeen = window, now
	return sendAll(f.fd, a.out.messages[:n])
}

// hear receives answers. Those to what has been given up are no answers any more.
func (a *flows) hear(f *flow) (answers int, err error) {
	n, errno := receive(f.fd, a.in.messages, unix.MSG_DONTWAIT)
	if errno == unix.EAGAIN {
		return 0, nil
	}
	if errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", errno)
	}
	f.lastSeen = time.Since(a.begun)
	for i, b := range a.in.buffers[:n] {
		from, size := int(binary.BigEndian.Uint32(b[8:])), int(a.in.messages[i].Len)
		if from != f.fd || size != a.request.answer {
			return 0, fmt.Errorf("%d bytes for flow %d arrived at flow %d", size, from, f.fd)
		}
		if binary.BigEndian.Uint32(b[12:]) == f.attempt {
			answers++
			a.latencies = append(a.latencies, f.lastSeen-time.Duration(binary.BigEndian.Uint64(b)))
		}
	}
	f.waiting -= answers
	return answers, nil
}

// run exchanges datagrams until the time is over or then, called after answers, returns errStop.
func (a *flows) run(bound time.Duration, then func(*flow) error) error {
	now := time.Now()
	end, check := now.Add(bound), now.Add(lossAfter)
	for ; now.Before(end); now = time.Now() {
		if now.After(check) {
			check = now.Add(lossAfter)
			if err := a.askAgain(); err != nil {
				return err
			}
		}
		events, err := a.wait(min(end.Sub(now), lossAfter))
		if err != nil {
			return err
		}
		for _, event := range events {
			f := a.byFD[event.Fd]
			answers, err := a.hear(f)
			if err == nil && answers > 0 {
				err = then(f)
			}
			if err != nil {
				return enough(err)
			}
		}
	}
	return nil
}

// askAgain gives up the answers that are overdue.
func (a *flows) askAgain() error {
	overdue := time.Since(a.begun) - lossAfter
	for _, f := range a.byFD {
		if f == nil || f.waiting == 0 || f.lastSeen > overdue {
			continue
		}
		a.lost += f.waiting
		window := f.waiting
		f.waiting = 0
		f.attempt++
		if err := a.ask(f, window); err != nil {
			return err
		}
	}
	return nil
}

// openSome opens flows, so many at a time, until n have been opened. What is done with an answer tells whether another
// one may begin, and whether it was the last.
func (a *flows) openSome(n, atATime int, then func(*flow) (another bool, err error)) error {
	for a.opened < min(n, atATime) {
		if err := a.open(); err != nil {
			return err
		}
	}
	answered := 0
	err := a.run(patience, func(f *flow) error {
		another, err := then(f)
		if err != nil || !another {
			return err
		}
		if answered++; answered == n {
			return errStop
		}
		if a.opened < n {
			return a.open()
		}
		return nil
	})
	if err == nil && answered < n {
		err = fmt.Errorf("%d of %d flows were answered within %v", answered, n, patience)
	}
	return err
}

// establish opens flows that stay, and waits until each has been answered.
func (a *flows) establish() error {
	return a.openSome(a.request.conns, maxOpening, func(f *flow) (bool, error) { return f.waiting == 0, nil })
}

func (a *flows) lostOf() float64 { return 100 * float64(a.lost) / float64(a.lost+len(a.latencies)) }

// echo exchanges datagrams on flows that stay.
func echo(r request) (values, error) {
	a, err := newFlows(r)
	if err != nil {
		return nil, err
	}
	if err := a.establish(); err != nil {
		return nil, err
	}
	exchange := func(f *flow) error { return a.ask(f, r.window) }
	for _, f := range a.byFD {
		if f == nil {
			continue
		}
		if err := exchange(f); err != nil {
			return nil, err
		}
	}
	a.lost = 0
	listen := func(*flow) error { return nil }
	v, err := a.measure(r, "exchange", func(d time.Duration) error { return a.run(d, exchange) },
		func() error { return a.run(lossAfter, listen) })
	if err == nil {
		v["lost-%"] = a.lostOf()
	}
	return v, err
}

// oneshot has r.count clients, r.conns at a time: each asks once, and is gone when it is answered. That is all, however
// long it takes.
func oneshot(r request) (values, error) {
	a, err := newFlows(r)
	if err != nil {
		return nil, err
	}
	r.warmup = 0
	v, err := a.measure(r, "exchange", func(d time.Duration) error {
		if d == 0 {
			return nil
		}
		return a.openSome(r.count, r.conns, func(f *flow) (bool, error) {
			a.byFD[f.fd] = nil
			return true, os.NewSyscallError("close", unix.Close(f.fd))
		})
	}, func() error { return nil })
	if err == nil {
		v["lost-%"] = a.lostOf()
	}
	return v, err
}

// idleFlows opens flows, exchanges one datagram on each, reports on descriptor 3 and holds them until the process is
// killed.
func idleFlows(r request) (values, error) {
	ready := status.Adopt()
	a, err := newFlows(r)
	if err == nil {
		err = a.establish()
	}
	if err != nil {
		return nil, err
	}
	return nil, hold(ready)
}
