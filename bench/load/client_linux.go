package load

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/bench/internal/usage"
	"github.com/portsplice/portsplice/internal/status"
)

const (
	// maxOpening bounds the connections or flows being opened at a time, for the sake of queues.
	maxOpening = 64
	// patience bounds the opening of what stays, and what a server takes to tell its counts.
	patience = 30 * time.Second
)

// client asks and waits for answers on any number of sockets.
type client struct {
	*loop
	protocol
	request
	start     time.Time
	latencies []time.Duration // of every answer since the count began
	opened    int
	underway  int           // questions
	failed    int           // connections
	lost      int           // datagrams or their answers, since the count began
	away      time.Duration // how long it has read CPU times, and taken no answers
}

// protocol is how a client asks: messages or flows. A socket is named by its descriptor.
type protocol interface {
	open()               // and ask, as soon as that can be
	ask(fd int)          // what may be under way on a socket
	advance(fd int) bool // goes on, and tells whether that brought an answer, or an end that counts
	giveUp()             // what has waited for longer than lossAfter, if that is not to wait for ever
}

func newClient(r request) *client {
	// There is room for what a second or more can bring.
	c := &client{loop: newLoop(), request: r, start: time.Now(), latencies: make([]time.Duration, 0, 1<<20)}
	if r.datagrams {
		c.protocol = newFlows(c)
	} else {
		c.protocol = newMessages(c)
	}
	return c
}

// now is the clock of latencies. It stands still while the client itself is what an answer waits for.
func (c *client) now() time.Duration { return time.Since(c.start) - c.away }

// expect has so many more answers to come on a socket, or fewer.
func (c *client) expect(of *conn, more int) {
	of.waiting += more
	c.underway += more
}

// run goes on until the time is over or then, called after every answer, has had enough.
func (c *client) run(bound time.Duration, then func(fd int) (more bool)) {
	now := time.Now()
	end, overdue := now.Add(bound), now.Add(lossAfter)
	for more := true; more && now.Before(end); now = time.Now() {
		if now.After(overdue) {
			overdue = now.Add(lossAfter)
			c.giveUp()
		}
		for _, event := range c.wait(min(end.Sub(now), lossAfter)) {
			if fd := int(event.Fd); c.advance(fd) {
				more = then(fd) && more // all of them: an edge comes once
			}
		}
	}
}

// establish opens sockets, so many at a time, and waits until n have been answered: the backend is reached too. What
// becomes of each is for then.
func (c *client) establish(n, atATime int, then func(fd int)) {
	begun, answered := c.opened, 0
	for range min(n, atATime) {
		c.open()
	}
	c.run(patience, func(fd int) bool {
		then(fd)
		if c.opened-begun < n {
			c.open()
		}
		answered++
		return answered < n
	})
	if answered < n {
		failure.Fail("%d of %d were answered within %v", answered, n, patience)
	}
}

func (c *client) close(fd int) { checkCall("close", unix.Close(fd)) }

// exchange asks again and again on sockets that stay.
func exchange(r request) values {
	c := newClient(r)
	var open []int
	c.establish(r.conns, maxOpening, func(fd int) { open = append(open, fd) })
	for _, fd := range open {
		c.ask(fd)
	}
	return c.measure("exchange", func(d time.Duration) {
		c.run(d, func(fd int) bool {
			c.ask(fd)
			return true
		})
	})
}

// idle opens sockets, asks once on each, reports on descriptor 3 and holds them until the process is killed.
func idle(r request) values {
	ready := status.Adopt()
	c := newClient(r)
	c.establish(r.conns, maxOpening, func(int) {})
	failure.Check(ready.Ready())
	for {
		_ = unix.Pause() // it ends with a signal, which is all it can say
	}
}

// oneshot has r.count clients, r.conns at a time: each asks once, and is gone when it is answered. That is all, however
// long it takes.
func oneshot(r request) values {
	r.warmup = 0
	c := newClient(r)
	return c.measure("exchange", func(d time.Duration) {
		if d > 0 {
			c.establish(r.count, r.conns, c.close)
		}
	})
}

// crr connects, exchanges one message and closes.
func crr(r request) values {
	c := newClient(r)
	for range r.conns {
		c.open()
	}
	return c.measure("conn", func(d time.Duration) {
		c.run(d, func(fd int) bool {
			if c.opened >= r.count {
				return false
			}
			c.close(fd)
			c.open()
			return true
		})
	})
}

// connects opens r.conns connections at once, each for one message, and again when the last is answered. An answer that
// fits a packet comes with its first byte.
func connects(r request) values {
	c := newClient(r)
	var last []float64 // of each time
	v := c.measure("conn", func(d time.Duration) {
		last = nil
		for end := time.Now().Add(d); time.Now().Before(end); {
			begun := time.Now()
			c.establish(r.conns, r.conns, c.close)
			last = append(last, usage.In(time.Microsecond, time.Since(begun)))
		}
	})
	v["last-us"] = stats.Median(last)
	return v
}

// measure runs a warm-up and then what counts. The unit is what an answer stands for. Then it waits for the answers
// that are still to come: they count for the percentiles, which would else leave out whoever waits longest, and for
// nothing else. Beside streams, which are most of what is done, CPU times are theirs, and an answer may take longer than all of
// that: whoever waits then counts for as long as it has waited. Without streams nothing would have been measured.
func (c *client) measure(unit string, run func(time.Duration)) values {
	left := time.Now()
	before, after := c.interval(c.beside, func(d time.Duration) {
		c.away += time.Since(left)
		c.latencies, c.lost = c.latencies[:0], 0
		run(d)
		left = time.Now()
	})
	c.away += time.Since(left)
	n := float64(len(c.latencies))
	if n == 0 && !c.beside {
		failure.Fail("no answer within %v", c.time)
	}
	var v values
	if c.beside {
		v = after.rate(before, after.sent-before.sent)
	} else {
		v = after.Each(before.Times, n, time.Microsecond, "us/"+unit)
	}
	v[unit+"/s"] = n / after.Since(before.Times).Seconds()
	c.finish()
	all := len(c.latencies)
	switch quarter := all / 4; {
	case c.datagrams:
		v["lost-%"] = 100 * float64(c.lost) / float64(c.lost+all)
	case c.churns:
		v["opened"] = float64(c.opened)
		v["failed-%"] = 100 * float64(c.failed) / float64(c.opened)
		if quarter > 0 { // they are in the order of their coming
			v["first-quarter-p99-us"] = percentile(slices.Clone(c.latencies[:quarter]), 99)
			v["last-quarter-p99-us"] = percentile(slices.Clone(c.latencies[all-quarter:]), 99)
		}
	}
	v["p50-us"], v["p99-us"] = percentile(c.latencies, 50), percentile(c.latencies, 99)
	if all >= 1000 { // of fewer, that is the slowest
		v["p99.9-us"] = percentile(c.latencies, 99.9)
	}
	return v
}

// percentile sorts the latencies.
func percentile(latencies []time.Duration, p float64) float64 {
	slices.Sort(latencies)
	return usage.In(time.Microsecond, stats.Percentile(latencies, p))
}

// finish waits for a while only: for datagrams as long as answers count, and messages that have none by then count as
// long as they wait.
func (c *client) finish() {
	bound := 2 * time.Second
	if c.datagrams {
		bound = lossAfter
	}
	if c.underway > 0 {
		c.run(bound, func(int) bool { return c.underway > 0 })
	}
	for _, of := range c.byFD {
		if of.waiting > 0 && !c.datagrams {
			c.latencies = append(c.latencies, c.now()-of.since)
		}
	}
}
