// Package histogram counts durations in buckets that grow exponentially, as Prometheus' native histograms have them: with
// schema 2, four to each power of two, so that a bucket is 19% wider than the one before.
package histogram

import (
	"math"
	"sync/atomic"
	"time"
)

// Schema is that of all histograms here: bucket i has what is more than 2^((i-1)/4) seconds and no more than 2^(i/4)
// (https://prometheus.io/docs/specs/native_histograms/).
const Schema = 2

const (
	// zeroPower makes 2^zeroPower seconds, 0.95 µs, what is as good as none: the loops' clock stands still for a turn, and
	// no connection is shorter.
	zeroPower = -20
	// lastPower makes 2^lastPower seconds, 36 hours, the end of the last bucket, which has what is longer, too.
	lastPower = 17

	buckets = (lastPower - zeroPower) << Schema
)

// ZeroThreshold is the longest time, in seconds, that counts as none.
const ZeroThreshold = 1.0 / (1 << -zeroPower)

// Histogram counts durations. Its zero value is ready; it has 1.2 kB. Any goroutine may use it, and none waits.
type Histogram struct {
	zero   atomic.Uint64
	sum    atomic.Int64 // nanoseconds; of all connections for 292 years
	counts [buckets]atomic.Uint64
}

// Add counts a duration: by two additions, of which none waits for another.
func (h *Histogram) Add(d time.Duration) {
	h.sum.Add(int64(max(d, 0)))
	if i := index(d.Seconds()); i <= zeroPower<<Schema {
		h.zero.Add(1)
	} else {
		h.counts[min(i, lastPower<<Schema)-zeroPower<<Schema-1].Add(1)
	}
}

// bounds are the ends of the buckets within a power of two.
var bounds = [1 << Schema]float64{0.5, 0.5946035575013605, 0.7071067811865475, 0.8408964152537144}

// index is the bucket of a time.
func index(seconds float64) int {
	if seconds <= ZeroThreshold {
		return zeroPower << Schema
	}
	fraction, power := math.Frexp(seconds)
	i := (power - 1) << Schema
	for _, bound := range bounds {
		if fraction > bound {
			i++
		}
	}
	return i
}

// Values are what a Histogram has counted.
type Values struct {
	Zero, Count uint64
	Sum         float64 // seconds
	Buckets     map[int]uint64
}

// Read reads it. What is added meanwhile may be in it in part.
func (h *Histogram) Read() Values {
	v := Values{Zero: h.zero.Load(), Sum: time.Duration(h.sum.Load()).Seconds(), Buckets: map[int]uint64{}}
	v.Count = v.Zero
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			v.Buckets[i+zeroPower<<Schema+1] = n
			v.Count += n
		}
	}
	return v
}
