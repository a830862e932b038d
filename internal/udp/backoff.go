package udp

import "time"

// The longest pause is also how long traffic may stand still after the cause has gone: short enough for a person not
// to notice, long enough that a call that fails for good costs ten wake-ups a second.
const (
	shortestPause = time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// backoff spaces out the attempts at a call that keeps failing. The zero value is ready to use.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

// pause returns at once after a first failure, and later with each one, unless done is closed first.
func (b *backoff) pause(done <-chan struct{}) {
	if b.next > 0 {
		timer := time.NewTimer(b.next)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-done:
		}
	}
	b.next = min(max(2*b.next, shortestPause), longestPause)
}
