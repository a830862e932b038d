package eventloop

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mover is a handler that can go to another loop.
type mover struct {
	on    atomic.Pointer[Loop]
	moved int
}

func (m *mover) Ready(uint32) {}

func (m *mover) Move(to *Loop) bool {
	m.moved++
	m.on.Store(to)
	return true
}

// fixed is a handler that cannot.
type fixed struct{}

func (fixed) Ready(uint32) {}

// Work is shared, not handlers: what would bring nothing starts no loop.
func TestWhatIsShared(t *testing.T) {
	for _, test := range []struct {
		name    string
		work    []uint32 // of movers
		fixed   uint32
		percent int32
		moved   []int // which
		loops   int
	}{
		{"one stream", []uint32{1000}, 0, 100, nil, 1},
		{"one stream beside idle connections", []uint32{0, 0, 1000, 0}, 0, 100, nil, 1},
		{"one stream beside a few small messages", []uint32{10, 1000, 10}, 0, 100, nil, 1},
		{"two streams", []uint32{1000, 1000}, 0, 100, []int{0}, 2},
		{"streams beside idle connections", []uint32{0, 100, 0, 100, 100, 100}, 0, 100, []int{1, 3}, 2},
		{"one large, many small", []uint32{100, 1000, 100, 100, 100}, 0, 100, []int{0, 2, 3, 4}, 2},
		{"what cannot be moved stays", []uint32{100}, 900, 100, []int{0}, 2},
		{"not saturated", []uint32{1000, 1000}, 0, busyPercent - 1, nil, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGroup(t, Options{Max: 2})
			g.Hold()
			l := g.First()
			var movers []*mover
			var moved []int
			l.Do(func() {
				for _, work := range test.work {
					m := new(mover)
					movers = append(movers, m)
					l.slots.at(l.slots.take(m).index).work = work
				}
				l.slots.at(l.slots.take(fixed{}).index).work = test.fixed
				l.relieve(test.percent)
			})
			l.Do(func() {})
			l.Do(func() { // the share is a step of the queue, before this
				for i, m := range movers {
					if m.moved > 0 {
						moved = append(moved, i)
					}
				}
			})
			if !slices.Equal(moved, test.moved) || g.Len() != test.loops {
				t.Errorf("moved %v, want %v; %d loops, want %d", moved, test.moved, g.Len(), test.loops)
			}
		})
	}
}

// What moves as one is counted as one.
func TestJoinedWork(t *testing.T) {
	l := newGroup(t, Options{}).First()
	l.Do(func() {
		whole, part, other := l.slots.take(new(mover)), l.slots.take(fixed{}), l.slots.take(new(mover))
		l.Join(part, whole)
		event := func(h Handle) unix.EpollEvent {
			return unix.EpollEvent{Fd: int32(h.index), Pad: int32(h.generation)}
		}
		want := func(when string, work ...uint32) {
			t.Helper()
			for i, h := range []Handle{whole, part, other} {
				if got := l.slots.at(h.index).work; got != work[i] {
					t.Errorf("%s: the work of handler %d is %d, want %d", when, i, got, work[i])
				}
			}
		}
		l.dispatch([]unix.EpollEvent{event(part), event(whole), event(other), event(part)})
		l.Charge(part, 10)
		want("joined", 13, 0, 1)
		l.Forget(whole)
		again := l.slots.take(new(mover)) // in its slot
		l.dispatch([]unix.EpollEvent{event(part), event(other)})
		want("the whole is gone", 0, 1, 2)
		l.Forget(part)
		l.Join(part, other)
		if next := l.slots.take(fixed{}); l.slots.at(next.index).whole.Registered() {
			t.Error("what comes to the slot of a part is joined")
		}
		l.Forget(again)
	})
}

// Two loops of which one has much more to do become even, without another one.
func TestUnevenLoops(t *testing.T) {
	for _, test := range []struct {
		name      string
		own, less int32 // percent of the two
		moved     int   // of ten movers with the same work
	}{
		{"busy and idle", 100, 0, 5},
		{"half busy and idle", 60, 0, 5},
		{"busy and half busy", 100, 50, 2},
		{"nearly even", 80, 60, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGroup(t, Options{Min: 2, Max: 2})
			g.Hold()
			l, other := g.First(), g.all()[1]
			other.Do(func() {})
			other.load.percent.Store(test.less)
			total := 0
			var movers []*mover
			l.Do(func() {
				for range 10 {
					m := new(mover)
					movers = append(movers, m)
					l.slots.at(l.slots.take(m).index).work = 100
				}
				other.load.percent.Store(test.less)
				l.relieve(test.own)
			})
			l.Do(func() {})
			l.Do(func() {
				for _, m := range movers {
					total += m.moved
				}
			})
			if total != test.moved {
				t.Errorf("%d of 10 were moved, want %d", total, test.moved)
			}
		})
	}
}

// A loop is busy while it is not blocked, whether or not its thread has a CPU.
func TestLoadIsTimeNotSpentWaiting(t *testing.T) {
	l := idleLoop(t)
	window := func(waited, worked time.Duration) int32 {
		o := &l.load
		o.sampled, o.began = true, l.group.clock()
		l.group.pass(waited)
		o.woke = l.group.clock()
		l.group.pass(worked)
		l.measure()
		return o.percent.Load()
	}
	for _, test := range []struct {
		waited, worked time.Duration
		want           int32
	}{{time.Second, 0, 0}, {0, time.Second, 99}, {time.Second, time.Second, 49}, {300 * time.Millisecond, 700 * time.Millisecond, 69}} {
		if got := window(test.waited, test.worked); got < test.want || got > test.want+1 {
			t.Errorf("waited %v, worked %v: %d %% busy, want %d", test.waited, test.worked, got, test.want)
		}
	}
}

// New connections go to the loop with the least to do, and a burst of them within one window is spread.
func TestPlace(t *testing.T) {
	g := newGroup(t, Options{Min: 3, Max: 3})
	g.Hold()
	for i, percent := range []int32{50, 10, 10} {
		g.all()[i].load.percent.Store(percent)
		g.all()[i].load.placed.Store(0)
	}
	var placed [3]int
	for range 100 {
		placed[g.First().Place().number]++
	}
	if placed != [3]int{7, 47, 46} {
		t.Errorf("placed %v", placed)
	}
}

// A loop that ends gives its handlers away first, and waits for those that cannot go yet.
func TestLoopsEnd(t *testing.T) {
	g := newGroup(t, Options{Max: 4})
	g.Hold()
	other := g.Grow()
	m := new(mover)
	var stays Handle
	other.Do(func() {
		other.slots.take(m)
		stays = other.slots.take(fixed{})
	})
	g.Shrink()
	if g.Len() != 1 {
		t.Fatalf("%d loops take new handlers, want 1", g.Len())
	}
	if other.Do(func() {}); m.on.Load() != g.First() || other.hasEnded() {
		t.Error("the loop did not give its handler away, or ended before the last was gone")
	}
	other.Do(func() {
		other.Forget(stays)
		for i := range other.slots.end { // as its owner does when it has moved
			if s := other.slots.at(i); s.handler == Handler(m) {
				other.slots.give(Handle{i, s.generation})
			}
		}
	})
	<-other.done
	if other.Post(func() { t.Error("a task ran on a loop that has ended") }) || other.Do(func() {}) {
		t.Error("a loop that has ended took a task")
	}
	if _, err := other.Listen(0, 0, m); !errors.Is(err, ErrClosed) {
		t.Errorf("listen gave %v, want %v", err, ErrClosed)
	}
}

// With Min loops there are never fewer, and with Max never more.
func TestBounds(t *testing.T) {
	g := newGroup(t, Options{Min: 2, Max: 2})
	last := g.all()[1]
	if g.easy(last) || g.grow(g.most(true)) != nil || g.Len() != 2 { // two loops may want another one at once
		t.Errorf("%d loops, may end: %v", g.Len(), g.easy(last))
	}
}
