package splice

import (
	"time"

	"golang.org/x/sys/unix"
)

// A loop whose last wait ended with one event gives up its CPU once before it waits again. The event was mostly
// something to pass on, and whoever it was passed to has been woken on this CPU: it runs, answers, and the answer is
// there when the loop goes on. To wait instead means to sleep, for the kernel to wake another CPU for the peer, and for
// the peer to wake this one. (1 client, 64 B, two CPUs: 8,100 -> 18,300 exchanges a second, p50 106 -> 26 us, the
// proxy's CPU time per exchange 49 -> 22 us.)
//
// With more events there is enough to do on all CPUs, and to stay on this one costs a tenth of the rate. And the CPU may
// go to somebody who does not work for us: beside two busy programs 1 client fell from 6,700 exchanges to 350, since the
// scheduler charges a yield with a whole time slice. So a yield that took long is the last for many waits, and so is
// one of several that found nothing.
const (
	longYield  = 200 * time.Microsecond // a peer that answers takes a tenth of it
	afterLong  = 1 << 16                // waits without a yield: seconds
	vainYields = 8                      // in a row
	afterVain  = 256                    // waits without a yield
)

// yields says when it pays to yield. Its zero value is ready.
type yields struct {
	alone bool // the last wait ended with one event
	vain  int  // yields in a row that found nothing
	pause int  // waits without a yield that are left
}

// pays says whether to yield before the next wait.
func (y *yields) pays() bool {
	if y.alone && y.pause > 0 {
		y.pause--
		return false
	}
	return y.alone
}

// learn is told how long a yield took and whether there were events then.
func (y *yields) learn(took time.Duration, found bool) {
	switch {
	case took > longYield:
		y.pause = afterLong
	case found:
		y.vain = 0
	default:
		if y.vain++; y.vain == vainYields {
			y.vain, y.pause = 0, afterVain
		}
	}
}

// yield gives up the CPU if that pays, and gives the events that there are then.
func (l *loop) yield() []unix.EpollEvent {
	if !l.yields.pays() {
		return nil
	}
	begun := time.Now()
	schedYield()
	ready := l.epoll.poll()
	l.yields.learn(time.Since(begun), len(ready) > 0)
	return ready
}
