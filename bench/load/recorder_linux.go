package load

import (
	"fmt"
	"slices"
	"time"

	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/bench/internal/usage"
)

// recorder keeps how long every answer took since the count began.
type recorder struct{ latencies []time.Duration }

// newRecorder has room for what a second or more can bring.
func newRecorder() recorder { return recorder{make([]time.Duration, 0, 1<<20)} }

// measure runs a warm-up and then what counts. The unit is what an answer stands for. Then finish waits for the answers
// that are still to come: they count for the percentiles, which would else leave out whoever waits longest, and for
// nothing else. Beside streams, which are most of what is done, CPU times are theirs.
func (c *recorder) measure(r request, unit string, run func(time.Duration) error, finish func() error) (values, error) {
	var counts counter
	if r.beside {
		var err error
		if counts, err = r.openCounts(); err != nil {
			return nil, err
		}
	}
	if err := run(r.warmup); err != nil {
		return nil, err
	}
	c.latencies = c.latencies[:0]
	before, err := r.read(counts)
	if err != nil {
		return nil, err
	}
	if err := run(r.time); err != nil {
		return nil, err
	}
	after, err := r.read(counts)
	if err != nil {
		return nil, err
	}
	n := float64(len(c.latencies))
	if n == 0 {
		return nil, fmt.Errorf("no answer within %v", r.time)
	}
	v := after.Each(before.Times, n, time.Microsecond, "us/"+unit)
	if r.beside {
		if v, err = after.rate(before, after.sent-before.sent); err != nil {
			return nil, err
		}
	}
	v[unit+"/s"] = n / after.Since(before.Times).Seconds()
	if err := finish(); err != nil {
		return nil, err
	}
	if r.churns {
		c.quarters(v)
	}
	c.percentiles(v)
	return v, nil
}

// leastAnswers is of how many there is a p99.9 that is not the slowest.
const leastAnswers = 1000

// percentiles adds those of all answers, which it sorts.
func (c *recorder) percentiles(v values) {
	slices.Sort(c.latencies)
	for name, p := range map[string]float64{"p50-us": 50, "p99-us": 99, "p99.9-us": 99.9} {
		v[name] = usage.In(time.Microsecond, stats.Percentile(c.latencies, p))
	}
	if len(c.latencies) < leastAnswers {
		delete(v, "p99.9-us")
	}
}

// quarters adds the percentile of the first and the last quarter of the answers, which are in the order of their coming.
func (c *recorder) quarters(v values) {
	n := len(c.latencies) / 4
	for name, part := range map[string][]time.Duration{
		"first-quarter-p99-us": c.latencies[:n], "last-quarter-p99-us": c.latencies[len(c.latencies)-n:],
	} {
		if n > 0 {
			v[name] = usage.In(time.Microsecond, stats.Percentile(slices.Sorted(slices.Values(part)), 99))
		}
	}
}
