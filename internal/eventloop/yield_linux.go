package eventloop

import (
	"time"

	"golang.org/x/sys/unix"
)

// An event is mostly something to pass on, and whoever it was passed to has been woken on this CPU: if the loop gives
// up its CPU once before it waits, the peer runs, answers, and the answer is there when the loop goes on. To wait instead
// means to sleep, for the kernel to wake another CPU for the peer, and for the peer to wake this one. (TCP, 1 client, 64 B,
// two CPUs: 8,100 -> 18,300 exchanges a second, p50 106 -> 26 us, the proxy's CPU time per exchange 49 -> 22 us.)
//
// But the CPU may go to somebody who does not work for us: beside two programs that take all CPUs, 1 client fell from
// 6,700 exchanges to 350, since the scheduler charges a yield with a whole time slice. So a yield that took long is the
// last for a while, which grows with every one that took long, and so is one of several in a row that found nothing.
const (
	longYield     = 200 * time.Microsecond // a peer that answers takes a tenth of it
	pauseAfterBad = 1 << 8                 // waits without a yield, after the first that took long
	longestPause  = 1 << 16                // seconds of messages
	vainYields    = 8                      // in a row
	pauseIfVain   = 1 << 8                 // waits without a yield
)

// yields says when it pays to yield. Its zero value is ready.
type yields struct {
	wanted bool // a handler of this turn has asked for it
	vain   int  // yields in a row that found nothing
	pause  int  // waits without a yield that are left
	bad    int  // the pause after the next yield that takes long; zero means pauseAfterBad
}

// Yield asks the loop to give up its CPU once before it waits, after this turn. It is for handlers that know that those
// they have just written to will answer soon; whether it is done is decided by what it has brought lately.
func (l *Loop) Yield() { l.yields.wanted = true }

// try gives up the CPU if that is wanted and pays (sched_yield(2)), and gives what poll then finds.
func (y *yields) try(poll func() []unix.EpollEvent) []unix.EpollEvent {
	if !y.wanted {
		return nil
	}
	y.wanted = false
	if y.pause > 0 {
		y.pause--
		return nil
	}
	begun := time.Now()
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // it cannot fail
	ready := poll()
	y.learn(time.Since(begun), len(ready) > 0)
	return ready
}

// learn is told how long a yield took and whether there were events then.
func (y *yields) learn(took time.Duration, found bool) {
	switch {
	case took > longYield:
		y.bad = min(max(2*y.bad, pauseAfterBad), longestPause)
		y.pause = y.bad
	case found:
		y.vain, y.bad = 0, y.bad/2
	default:
		if y.vain++; y.vain == vainYields {
			y.vain, y.pause = 0, pauseIfVain
		}
	}
}
