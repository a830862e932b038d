package sourceport

import (
	"testing"
	"time"
)

// A pool gives each port of its half once, and then those that came back, in that order and not before they have rested.
func TestPool(t *testing.T) {
	for _, c := range []struct{ low, high, first, size int }{
		{101, 140, 121, 20}, {1, 65535, 32769, 32767}, {1, 17, 10, 8}, {4001, 12002, 8002, 4001},
	} {
		p, clock := NewPool(uint16(c.low), uint16(c.high)), time.Now()
		p.now = func() time.Time { return clock }
		if size, of := p.Size(); size != c.size || of != c.high-c.low+1 {
			t.Errorf("%d ports of %d, want %d of %d", size, of, c.size, c.high-c.low+1)
		}
		seen := make(map[int]bool)
		for range c.size {
			port := int(p.Take(false))
			if seen[port] || port < c.first || port > c.high {
				t.Fatalf("port %d, of %d to %d, seen before: %v", port, c.first, c.high, seen[port])
			}
			seen[port] = true
		}
		expect := func(need bool, want uint16) {
			t.Helper()
			if got := p.Take(need); got != want {
				t.Errorf("got port %d, want %d", got, want)
			}
		}
		expect(true, 0)
		first, last := uint16(c.first), uint16(c.high)
		p.Return(last)
		clock = clock.Add(rest / 2)
		p.Return(first)
		p.Return(0)
		p.Return(uint16(c.low - 1))
		expect(false, 0)
		clock = clock.Add(rest / 2)
		expect(false, last)
		expect(false, 0)
		expect(true, first)
		expect(true, 0)
		behind := max(1, min(restBehind, c.size/4))
		for port := range behind + 1 {
			expect(false, 0)
			p.Return(first + uint16(port))
		}
		expect(false, first)
		expect(false, 0)

		clock = clock.Add(rest)
		for range behind {
			p.Take(false)
		}
		for range behind + 1 { // which is no rest for what was given back
			p.Taken(last)
		}
		p.Return(first)
		expect(false, 0)
		expect(true, first)
		expect(true, 0)
		clock = clock.Add(rest)
		p.Return(first)
		expect(false, last)
		expect(true, first)
	}
}

// A range that the system does not tell has no ports; one that changes begins anew, without what was of the old one.
func TestPoolFollowsTheRange(t *testing.T) {
	var now ports
	p := &Pool{read: func(time.Time) ports { return now }, now: time.Now}
	if size, of := p.Size(); size != 0 || of != 0 || p.Take(true) != 0 {
		t.Errorf("%d ports of %d, and one is given", size, of)
	}
	now = newPorts(11, 14, nil)
	old := []uint16{p.Take(false), p.Take(false)}
	now = newPorts(21, 28, []span{{20, 25}, {27, 27}})
	p.Take(false)
	for _, port := range old {
		p.Return(port)
	}
	got := map[uint16]bool{p.Take(true): true, p.Take(true): true}
	if now = newPorts(21, 28, nil); !got[0] || len(got) != 2 {
		t.Errorf("got %v, want what is left of 26 and 28", got)
	}
	all := make(map[uint16]bool)
	for range 4 {
		all[p.Take(false)] = true
	}
	if len(all) != 4 || all[0] {
		t.Errorf("got %v, want all when they are not reserved any more", all)
	}
}
