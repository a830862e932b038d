// Package failurelog writes failures to a log that must not flood: the host's journal. It lets one line through per
// interval and says, when the interval is over, how many it left out.
package failurelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Interval is the least time between two lines.
const Interval = time.Second

// Log writes failures to a handler of log/slog. It may be used by any goroutine, and never keeps one waiting: a journal that does not
// read must not stop the traffic.
type Log struct {
	to slog.Handler

	mu      sync.Mutex
	waiting bool    // a line is being written, or was less than Interval ago
	leftOut int     // failures since then
	last    failure // the newest of them
}

type failure struct {
	op              string
	client, backend netip.AddrPort
	err             error
}

// New makes a log. A line that its handler does not take is lost: there is nobody to tell. One that it may take later
// (syscall.EAGAIN) is among those that were left out.
func New(to slog.Handler) *Log {
	// The runtime opens two descriptors for the first timer of a process, and ends the process when it cannot
	// (runtime.netpollinit). That must not happen at the first failure, which may be that there are none left.
	time.AfterFunc(Interval, func() {}).Stop()
	return &Log{to: to}
}

// Report logs that op failed, for a client where there is one.
func (l *Log) Report(op string, client, backend netip.AddrPort, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := failure{op, client, backend, err}
	if l.waiting {
		l.leftOut++
		l.last = f
		return
	}
	l.waiting = true
	go l.write(f, 0)
}

func (f failure) String() string {
	if f.client.IsValid() {
		return fmt.Sprintf("%s: client %v, backend %v: %v", f.op, f.client, f.backend, f.err)
	}
	return fmt.Sprintf("%s: backend %v: %v", f.op, f.backend, f.err)
}

// write writes a line, with how many others were left out, and begins an interval.
func (l *Log) write(f failure, others int) {
	line := f.String()
	if others > 0 {
		line = fmt.Sprintf("%s (and %d more failures since the last line)", line, others)
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, line, 0)
	r.AddAttrs(slog.String("operation", f.op))
	if f.client.IsValid() {
		r.AddAttrs(slog.Any("client", f.client))
	}
	r.AddAttrs(slog.Any("backend", f.backend), slog.Any("error", f.err), slog.Int("left_out", others))
	if errors.Is(l.to.Handle(context.Background(), r), syscall.EAGAIN) {
		l.mu.Lock()
		if l.leftOut == 0 {
			l.last = f
		}
		l.leftOut += 1 + others
		l.mu.Unlock()
	}
	time.AfterFunc(Interval, l.intervalOver)
}

// intervalOver writes the newest of the failures that were left out, and how many others there were.
func (l *Log) intervalOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leftOut == 0 {
		l.waiting = false
		return
	}
	go l.write(l.last, l.leftOut-1)
	l.leftOut = 0
}
