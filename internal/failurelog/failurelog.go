// Package failurelog writes failures to a log that must not flood: the host's journal. It lets one line through per
// interval and says, when the interval is over, how many it left out.
package failurelog

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"
)

// Interval is the least time between two lines.
const Interval = time.Second

// Log writes failures to w. It may be used by any goroutine, and never keeps one waiting: a journal that does not
// read must not stop the traffic.
type Log struct {
	w io.Writer

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

// New makes a log that writes to w. A write that fails is lost: there is nobody to tell.
func New(w io.Writer) *Log {
	// The runtime opens two descriptors for the first timer of a process, and ends the process when it cannot
	// (runtime.netpollinit). That must not happen at the first failure, which may be that there are none left.
	time.AfterFunc(Interval, func() {}).Stop()
	return &Log{w: w}
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
	go l.write(f.String())
}

func (f failure) String() string {
	if f.client.IsValid() {
		return fmt.Sprintf("portsplice: %s: client %v, backend %v: %v", f.op, f.client, f.backend, f.err)
	}
	return fmt.Sprintf("portsplice: %s: backend %v: %v", f.op, f.backend, f.err)
}

// write writes a line and begins an interval.
func (l *Log) write(line string) {
	_, _ = fmt.Fprintln(l.w, line)
	time.AfterFunc(Interval, l.intervalOver)
}

// intervalOver writes the newest of the failures that were left out, and how many others there were.
func (l *Log) intervalOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.leftOut {
	case 0:
		l.waiting = false
		return
	case 1:
		go l.write(l.last.String())
	default:
		go l.write(fmt.Sprintf("%v (and %d more failures since the last line)", l.last, l.leftOut-1))
	}
	l.leftOut = 0
}
