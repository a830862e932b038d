package splice

import (
	"time"

	"golang.org/x/sys/unix"
)

// An engine begins with one loop, which is enough for most ports. One that is saturated for a while gets another
// beside it, up to the CPUs that the process may use, which takes over half of its connections; a loop that has little
// to do for a while gives its connections back and ends, with its thread.
//
// A loop that carries small messages is saturated when its thread has used nearly all of a CPU. To wait for a CPU does
// it no harm: more events are served per wake. One that streams is saturated when it never catches up: what waits in
// pipes and sockets leaves the CPU's caches, and the machine pays twice. (8 bulk flows on two busy cores,
// BBR: the loop's thread had 0.3 of a CPU and carried 0.75 of what io.Copy did; two loops carried 1.10.)
const (
	loadWindow    = 50 * time.Millisecond
	saturatedLoad = 85 // percent
	saturatedFor  = 2  // windows in a row
	quietLoad     = 25 // percent
	quietFor      = 40 // windows in a row

	// loadWakes is how many returns of epoll_wait pass between two looks at the clock.
	loadWakes = 16
)

// load is how busy a loop is.
type load struct {
	wakes, unseen    int           // returns of epoll_wait in this window, and since the last look at the clock
	since            time.Duration // when the window began, since the loop's start
	cpu              time.Duration // what the thread had used then
	backlog          bool          // a pump has ended its turn with its source unread since the last return
	backlogs         int           // returns of epoll_wait in this window that ended so
	saturated, quiet int           // windows in a row
}

// measure looks at the clock from time to time, and at the end of a wait that nothing ended, to find out whether
// the loop is saturated or hardly needed.
func (l *loop) measure(timedOut bool) {
	if l.load.backlog {
		l.load.backlog = false
		l.load.backlogs++
	}
	if l.load.unseen++; l.load.unseen < loadWakes && !timedOut {
		return
	}
	l.load.wakes += l.load.unseen
	l.load.unseen = 0
	now := l.now()
	wall := now - l.load.since
	if wall < loadWindow {
		return
	}
	cpu := threadCPU()
	busy := max(int(100*(cpu-l.load.cpu)/wall), 100*l.load.backlogs/l.load.wakes)
	l.load.since, l.load.cpu, l.load.wakes, l.load.backlogs = now, cpu, 0, 0
	switch {
	case busy >= saturatedLoad:
		l.load.saturated++
		l.load.quiet = 0
	case busy < quietLoad:
		l.load.saturated = 0
		l.load.quiet++
	default:
		l.load.saturated, l.load.quiet = 0, 0
	}
	switch {
	case l.load.saturated >= saturatedFor && l.stats.active.Load() > 1: // one connection cannot be shared
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
