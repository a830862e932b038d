package flows

import (
	"testing"
	"testing/synctest"
	"time"
)

const timeout = 90 * time.Second

// stopwatch is the time since now.
func stopwatch() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// Whatever the traffic, a flow is forgotten between one timeout and 9/8 of it after its last datagram, and time is kept
// by at most eight sweeps per timeout, and none without flows.
func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		name   string
		flows  int
		apart  time.Duration // between their first datagrams
		every  time.Duration // between the datagrams of each; zero: there is only one
		last   int           // datagrams of each
		sweeps int           // at most
	}{
		{"one flow, one datagram", 1, 0, 0, 1, 1},
		{"one that goes on", 1, 0, 10 * time.Second, 100, 14}, // every 80 s, for 1,080 s,
		{"many together", 1000, 0, 0, 1, 1},
		{"one after the other", 1000, time.Second, 0, 1, 8 * (1 + 1000/90)},
		{"just before they would expire", 10, time.Second, timeout - 1, 5, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				flows := make([]*testFlow, c.flows)
				last := time.Duration(c.flows-1)*c.apart + time.Duration(c.last-1)*c.every
				k := keeper{timeout: timeout, table: New[int, *testFlow](), now: stopwatch()}
				for i := range flows {
					flows[i] = &testFlow{Tracking[int]{Key: i}}
					for n := range c.last {
						k.at(time.Duration(i)*c.apart+time.Duration(n)*c.every, func() { k.datagram(flows[i]) })
					}
				}
				k.run(t)
				if k.sweeps > c.sweeps {
					t.Errorf("%d sweeps, want at most %d", k.sweeps, c.sweeps)
				}
				if end := k.now(); k.expired != c.flows || end < last+timeout || end > last+timeout*9/8 {
					t.Errorf("%d flows expired, the last at %v; its last datagram was at %v", k.expired, end, last)
				}
			})
		})
	}
}

// keeper keeps time for a table as the relays do: it sweeps when the table is due.
type keeper struct {
	timeout time.Duration
	table   testTable
	now     func() time.Duration
	events  []event
	sweep   *time.Timer
	sweeps  int
	expired int
}

// event is something that happens at a time.
type event struct {
	at time.Duration
	do func()
}

func (k *keeper) at(when time.Duration, do func()) { k.events = append(k.events, event{when, do}) }

// run lets all events happen, and then all flows expire.
func (k *keeper) run(t *testing.T) {
	t.Helper()
	k.sweep = time.NewTimer(0)
	<-k.sweep.C
	happens := make(chan func())
	for _, e := range k.events {
		timer := time.AfterFunc(e.at, func() { happens <- e.do })
		defer timer.Stop()
	}
	for left := len(k.events); left > 0 || k.table.Len() > 0; {
		select {
		case do := <-happens:
			do()
			left--
		case <-k.sweep.C:
			k.expire(t)
		}
	}
}

func (k *keeper) datagram(f *testFlow) {
	if f.queued {
		f.Touch(k.now())
		return
	}
	if k.table.Len() == 0 {
		k.sweep.Reset(k.timeout)
	}
	k.table.Add(f, k.now())
}

func (k *keeper) expire(t *testing.T) {
	t.Helper()
	k.sweeps++
	now := k.now()
	for _, f := range k.table.Expire(now - k.timeout) {
		k.expired++
		if idle := now - seenOf(f); idle > k.timeout*9/8 {
			t.Errorf("flow %d was idle for %v", f.Key, idle)
		}
	}
	if at, some := k.table.Due(now, k.timeout); some {
		k.sweep.Reset(at - now)
	}
}
