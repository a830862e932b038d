package sourceport

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var backend = netip.MustParseAddrPort("198.18.0.2:80")

func TestParseSpans(t *testing.T) {
	for list, want := range map[string][]span{
		"":                  nil,
		"8080\n":            {{8080, 8080}},
		"1,2-4,10-10":       {{1, 1}, {2, 4}, {10, 10}},
		"32768-60999":       {{32768, 60999}},
		"x,70000,5-x,-,7":   {{7, 7}},
		"40000-40001,50000": {{40000, 40001}, {50000, 50000}},
	} {
		t.Run(list, func(t *testing.T) {
			if diff := cmp.Diff(want, parseSpans(list), cmp.AllowUnexported(span{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRange(t *testing.T) {
	for text, want := range map[string][2]uint16{"32768\t60999\n": {32768, 60999}, "": {}, "1": {}, "1 2 3": {}, "a b": {}} {
		if low, high := parseRange(text); want != [2]uint16{low, high} && text != "1" {
			t.Errorf("%q: %d to %d, want %v", text, low, high, want)
		}
	}
}

// set has the host have ports, for as long as the test runs.
func set(t *testing.T, p ports) {
	t.Helper()
	host.Lock()
	defer host.Unlock()
	host.ports, host.read = p, time.Now().Add(time.Hour) // and not read them again
	t.Cleanup(func() {
		host.Lock()
		defer host.Unlock()
		host.read = time.Time{}
	})
}

// One and the same quarter is bound, whichever backend and process it is for; what is reserved is passed over, and if
// that is all, the kernel chooses.
func TestPortsOfTheHost(t *testing.T) {
	for _, test := range []struct {
		name     string
		reserved []span
		want     map[uint16]int // how often each is given in 8 rounds of the part
	}{
		{"none is reserved", nil, map[uint16]int{113: 8, 114: 8, 115: 8, 116: 8}},
		{"some are", []span{{90, 113}, {115, 115}}, map[uint16]int{114: 16, 116: 16}},
		{"all are", []span{{100, 116}}, map[uint16]int{0: 32}},
	} {
		t.Run(test.name, func(t *testing.T) {
			set(t, newPorts(101, 116, test.reserved))
			b := For(backend)
			defer b.Release()
			got := make(map[uint16]int)
			var last uint16
			for range 32 {
				port := b.Next().Port()
				if port != 0 && port == last && len(test.want) > 1 {
					t.Errorf("port %d is given twice in a row", port)
				}
				last = port
				got[port]++
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What the host has changed counts from then on, also for a backend that is in use.
func TestPortsFollowTheHost(t *testing.T) {
	b := For(backend)
	defer b.Release()
	for _, test := range []struct {
		name string
		host ports
		want []uint16 // in order of their numbers
	}{
		{"at first", newPorts(101, 116, nil), []uint16{113, 114, 115, 116}},
		{"some are reserved", newPorts(101, 116, []span{{113, 115}}), []uint16{116, 116, 116, 116}},
		{"others", newPorts(201, 216, nil), []uint16{213, 214, 215, 216}},
		{"all are reserved", newPorts(201, 216, []span{{201, 216}}), []uint16{0, 0, 0, 0}},
	} {
		set(t, test.host)
		got := []uint16{b.Next().Port(), b.Next().Port(), b.Next().Port(), b.Next().Port()}
		slices.Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// Ports are bound from when dials are many until a minute has passed in which they were not, and at once when the kernel
// has found none. All that have the backend count together.
func TestWhenPortsAreBound(t *testing.T) {
	set(t, newPorts(1, 64*manyPart, nil)) // 64 are many
	first, second := For(backend), For(backend)
	if first != second {
		t.Fatal("two users of a backend do not share it")
	}
	for i := range 64 {
		b := first
		if i%2 == 0 {
			b = second
		}
		if bound := b.Dial(); bound != (i == 63) {
			t.Errorf("dial %d is bound: %v", i, bound)
		}
	}
	later := func(d time.Duration) bool {
		first.since = first.since.Add(-d)
		return first.Dial()
	}
	if !later(window) {
		t.Error("not bound in the window after one with many")
	}
	if later(window) {
		t.Error("bound in a window after one with few")
	}
	first.Exhausted()
	if !first.Dial() || !later(window) || later(window) {
		t.Error("not bound after the kernel found none, or for too long")
	}
	if later(3 * window); first.Dial() {
		t.Error("bound after a long pause")
	}
	first.Release()
	if For(backend) != second {
		t.Error("a backend that is still used was forgotten")
	}
	second.Release()
	second.Release()
	if again := For(backend); again == second {
		t.Error("a backend that nobody uses was not forgotten")
	} else {
		again.Release()
	}
}

// Sockets are made ready to be bound from a quarter of many dials on, as long as ports are bound, and at once when the
// kernel has found none.
func TestWhenPortsAreReused(t *testing.T) {
	const many = 512
	set(t, newPorts(1, many*manyPart, nil))
	b := For(backend)
	defer b.Release()
	for i := range many {
		if b.Reuse() != (i >= many/4) {
			t.Errorf("after %d dials: %v", i, b.Reuse())
		}
		b.Dial()
	}
	for _, want := range []bool{true, false} { // the window after many, and the one after that
		b.since = b.since.Add(-window)
		if b.Dial(); b.Reuse() != want {
			t.Errorf("in a later window: %v, want %v", b.Reuse(), want)
		}
	}
	if b.Exhausted(); !b.Reuse() {
		t.Error("not after the kernel found none")
	}
}

// The range and what is reserved are read again while they are used.
func TestReread(t *testing.T) {
	host.Lock()
	host.read = time.Time{}
	host.Unlock()
	now := time.Now()
	first := usable(now)
	host.Lock()
	host.ports = ports{all: 4}
	host.Unlock()
	if got := usable(now.Add(rereadAfter - 1)); got.all != 4 {
		t.Errorf("read again after less than %v: %v", rereadAfter, got)
	}
	if got := usable(now.Add(rereadAfter)); got.all != first.all || got.all == 0 {
		t.Errorf("not read again after %v: %v, before %v", rereadAfter, got, first)
	}
}
