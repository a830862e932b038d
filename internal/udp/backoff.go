package udp

import "time"

// The longest pause is also how long traffic may stand still after the cause has gone: short enough for a person not
// to notice, long enough that a call that fails for good costs ten wake-ups a second.
const (
	shortestPause = time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// backoff spaces out the attempts at a call that keeps failing. The zero value is ready to use.
type backoff struct{ rest time.Duration }

func (b *backoff) reset() { b.rest = 0 }

// next is how long to rest after one more failure: not at all after the first, and longer with each.
func (b *backoff) next() time.Duration {
	rest := b.rest
	b.rest = min(max(2*b.rest, shortestPause), longestPause)
	return rest
}

// pause rests, unless done is closed first.
func (b *backoff) pause(done <-chan struct{}) {
	rest := b.next()
	if rest == 0 {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
