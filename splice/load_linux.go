package splice

import (
	"time"

	"golang.org/x/sys/unix"
)

// An engine begins with one loop, which is enough for most ports. When the thread of a loop has used nearly all of a
// CPU for a while, another loop is started, up to the CPUs that the process may use, and takes over half of its
// connections; a loop that has little to do for a while gives its connections back and ends, with its thread.
const (
	loadWindow    = 100 * time.Millisecond
	saturatedLoad = 85 // percent of a CPU
	saturatedFor  = 2  // windows in a row
	quietLoad     = 25 // percent of a CPU
	quietFor      = 20 // windows in a row

	// loadWakes is how many returns of epoll_wait pass between two looks at the clock: a thousandth of the time
	// that as many small messages take.
	loadWakes = 256
)

// load is how busy a loop is.
type load struct {
	wakes            int           // since the last look at the clock
	since            time.Duration // when the window began, since the loop's start
	cpu              time.Duration // of the thread, then
	saturated, quiet int           // windows in a row
}

// measure looks at the clock from time to time, and at the end of a wait that nothing ended, to find out whether
// the loop is saturated or hardly needed.
func (l *loop) measure(timedOut bool) {
	if l.load.wakes++; l.load.wakes < loadWakes && !timedOut {
		return
	}
	l.load.wakes = 0
	now, cpu := l.now(), threadCPU()
	wall, used := now-l.load.since, cpu-l.load.cpu
	if wall < loadWindow {
		return
	}
	l.load.since, l.load.cpu = now, cpu
	switch percent := 100 * used / wall; {
	case percent >= saturatedLoad:
		l.load.saturated++
		l.load.quiet = 0
	case percent < quietLoad:
		l.load.saturated = 0
		l.load.quiet++
	default:
		l.load.saturated, l.load.quiet = 0, 0
	}
	switch {
	case l.load.saturated >= saturatedFor && l.overload != nil:
		l.load.saturated = 0
		l.overload(l)
	case l.load.quiet >= quietFor && l.idle != nil && l.heir == nil:
		l.load.quiet = 0
		l.idle(l)
	}
}

// threadCPU is the CPU time that the calling thread has used.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
