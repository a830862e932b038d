package eventloop

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// balanced is a loop that nobody runs, with two movers, whose windows the test makes.
type balanced struct {
	*Loop
	now    time.Duration
	movers [2]Handle
}

func newBalanced(t *testing.T, o Options) *balanced {
	t.Helper()
	b := &balanced{Loop: idleFirst(t, newGroup(t, o)), now: time.Hour}
	for i := range b.movers {
		b.movers[i] = b.slots.take(new(mover))
	}
	return b
}

// windows has both movers work, and the loop found to be so busy, once for each of percents.
func (b *balanced) windows(percents ...int32) {
	for _, percent := range percents {
		for _, h := range b.movers {
			b.Charge(h, 100)
		}
		b.balance(percent, b.now)
		b.now += loadWindow
	}
}

// moves is how often its movers were given away.
func (b *balanced) moves() (n int) {
	for i := range b.slots.end {
		if m, ok := b.slots.at(i).handler.(*mover); ok {
			n += m.moved
		}
	}
	return n
}

// A loop gives work away when it has been busy for windows in a row, by what was done in these.
func TestWhenWorkIsGivenAway(t *testing.T) {
	for _, test := range []struct {
		name    string
		options Options
		windows []int32
		moves   int
	}{
		{"saturated once", Options{Max: 2}, []int32{100}, 0},
		{"saturated", Options{Max: 2}, []int32{100, 100}, 1},
		{"saturated, with a pause", Options{Max: 2}, []int32{100, 0, 100}, 0},
		{"saturated for long", Options{Max: 2}, []int32{100, 100, 100, 100, 100}, 2},
		{"saturated, and alone", Options{Max: 1}, []int32{100, 100, 100, 100}, 0},
		{"half busy beside an idle one", Options{Min: 2}, []int32{halfPercent, halfPercent}, 1},
		{"less busy beside an idle one", Options{Min: 2}, []int32{halfPercent - 1, halfPercent - 1, halfPercent - 1}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBalanced(t, test.options)
			b.windows(test.windows...)
			if got := b.moves(); got != test.moves {
				t.Errorf("moved %d times, want %d", got, test.moves)
			}
			if most := max(1, test.options.Max, test.options.Min); b.group.Len() > most {
				t.Errorf("%d loops, want %d at the most", b.group.Len(), most)
			}
		})
	}
	t.Run("what was done before does not count", func(t *testing.T) {
		b := newBalanced(t, Options{Max: 2})
		b.Charge(b.movers[0], 1_000_000)
		if b.windows(100, 100); b.moves() == 0 {
			t.Error("work that has two movers by now is not shared")
		}
	})
	t.Run("not at once when there was nothing to share", func(t *testing.T) {
		b := newBalanced(t, Options{Max: 2})
		b.Charge(b.slots.take(fixed{}), 0)
		movers := b.movers
		b.movers = [2]Handle{b.slots.take(fixed{}), {}}
		b.windows(100, 100)
		b.movers = movers
		if b.windows(100, 100, 100, 100); b.moves() > 0 {
			t.Errorf("the loop looked again before %v", shareAgain)
		}
		b.now += shareAgain
		if b.windows(100, 100); b.moves() == 0 {
			t.Errorf("the loop did not look again after %v", shareAgain)
		}
	})
	t.Run("not by one that ends", func(t *testing.T) {
		b := newBalanced(t, Options{Max: 2})
		b.load.retiring = true
		if b.windows(100, 100); b.moves() > 0 {
			t.Error("it is")
		}
	})
	t.Run("at once, behind any number of idle connections", func(t *testing.T) {
		b := newBalanced(t, Options{Max: 2})
		for range 2 * lookStep {
			b.slots.take(new(mover))
		}
		b.movers = [2]Handle{b.slots.take(new(mover)), b.slots.take(new(mover))}
		if b.windows(100, 100); b.moves() != 1 || b.Queued() {
			t.Errorf("%d of two that work as much have moved, or there is another step", b.moves())
		}
	})
	t.Run("at once, and the rest in steps", func(t *testing.T) {
		b := newBalanced(t, Options{Max: 2})
		b.Enqueue(&runFunc{func() Verdict { return Again }}) // a stream that does not let others have their turn
		for range 3 * moveStep {
			b.slots.take(new(mover))
		}
		windows := func(n int) {
			for range n {
				for i := range b.slots.end {
					b.slots.at(i).work = 100
				}
				b.windows(100)
			}
		}
		if windows(sustained); b.moves() != moveStep {
			t.Fatalf("moved %d, want %d", b.moves(), moveStep)
		}
		if windows(3 * sustained); b.moves() != moveStep { // another share would have had a step
			t.Errorf("moved %d before the rest had its turn", b.moves())
		}
		if b.runSlice(); b.moves() == moveStep {
			t.Error("the rest waits for the stream's turn to end")
		}
	})
}

// The last loop ends when the others would do for easyFor windows in a row, and no other one does.
func TestWhenALoopEnds(t *testing.T) {
	g := newGroup(t, Options{Max: 2})
	last := g.Grow()
	first := g.First()
	windows := func(n int, percent int32) {
		first.load.percent.Store(percent)
		for range n {
			last.balance(0, 0)
		}
	}
	last.Do(func() { // it has no windows of its own meanwhile
		last.load.easy = 0
		last.load.percent.Store(0)
		windows(easyFor-1, easyPercent)
		windows(1, easyPercent+1)
		windows(easyFor-1, easyPercent)
		if g.Len() != 2 {
			t.Fatal("it has ended early")
		}
		windows(1, easyPercent)
		if g.Len() != 1 {
			t.Error("it has not ended")
		}
	})
	<-last.done
	if first.load.percent.Store(0); g.easy(first) {
		t.Error("the first loop may end")
	}
}

// Only the last loop may end, and a group that is closed neither gains nor loses one. Closing it ends those, too, that wait
// for what cannot be moved.
func TestWhatAGroupKeeps(t *testing.T) {
	g := newGroup(t, Options{Max: 3})
	g.Hold()
	middle, last := g.Grow(), g.Grow()
	for _, l := range g.all() {
		l.load.percent.Store(0)
	}
	for _, l := range []*Loop{g.First(), middle} {
		if g.easy(l) || g.leave(l) || g.Len() != 3 {
			t.Errorf("loop %d of 3 may end", l.number)
		}
	}
	last.Do(func() { last.slots.take(fixed{}) })
	g.Shrink()
	if g.Len() != 2 || last.hasEnded() {
		t.Errorf("%d loops take new handlers; the one that has a handler has ended: %v", g.Len(), last.hasEnded())
	}
	g.Close()
	if !last.hasEnded() || !middle.hasEnded() {
		t.Error("a loop has outlived its group")
	}
	if g.Grow() != nil || g.leave(middle) || g.Len() != 2 {
		t.Error("a closed group has changed")
	}
}

// Handlers are moved in steps, between which the loop has its turns, and all of them.
func TestMovesAreInSteps(t *testing.T) {
	const handlers = 3*moveStep + 1
	for _, test := range []struct {
		name   string
		runner func(l, to *Loop) Runner
	}{
		{"share", func(l, to *Loop) Runner { return &share{loop: l, to: to, want: handlers} }},
		{"all", func(l, to *Loop) Runner { return &giveAway{loop: l, to: func() *Loop { return to }} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := idleLoop(t)
			movers := make([]*mover, handlers)
			for i := range movers {
				movers[i] = new(mover)
				l.Charge(l.slots.take(movers[i]), 1)
			}
			var moved []int
			r := test.runner(l, l)
			for verdict := Next; verdict != Done; {
				verdict = r.Run()
				sum := 0
				for _, m := range movers {
					sum += m.moved
				}
				moved = append(moved, sum)
			}
			if want := []int{moveStep, 2 * moveStep, 3 * moveStep, handlers}; !slices.Equal(moved, want) {
				t.Errorf("moved %v, want %v", moved, want)
			}
		})
	}
}

// Of many talkers the last goes to the quiet loop, too, and of many streams there the last leaves, though the loop has windows
// meanwhile: their work is not counted anew before.
func TestWindowsOfAShare(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		b := newBalanced(t, Options{Min: 2})
		b.load.streams.Store(true)
		stream, leave := b.slots.take(new(mover)), b.movers[:]
		for len(leave) <= moveStep {
			leave = append(leave, b.slots.take(new(mover)))
		}
		if quiet {
			b.group.quiet.Store(b.Loop)
			leave = append(leave, stream)
		}
		for range sustained {
			b.Stream(stream, 1000)
			for _, h := range leave {
				if b.Charge(h, talk); quiet {
					b.Stream(h, 100)
				}
			}
			b.windows(partPercent)
		}
		if b.moves() != moveStep || !b.Queued() {
			t.Fatalf("quiet %v: %d moves, want %d, and another step", quiet, b.moves(), moveStep)
		}
		b.movers = [2]Handle{}
		for b.windows(partPercent, partPercent); b.Queued(); {
			b.runSlice()
		}
		if b.moves() != len(leave) {
			t.Errorf("quiet %v: %d moves, want %d", quiet, b.moves(), len(leave))
		}
	}
}

// A loop does not end while it has something to do, and takes nothing once it is about to.
func TestLoopWithWorkDoesNotEnd(t *testing.T) {
	l := idleLoop(t)
	ends := func(with string) {
		t.Helper()
		if l.end() {
			t.Fatalf("the loop ends with %s", with)
		}
	}
	handle := l.slots.take(fixed{})
	ends("a handler")
	l.Forget(handle)
	fd, _ := event(t)
	handle, err := l.Listen(fd, unix.EPOLLIN, fixed{})
	if err != nil {
		t.Fatal(err)
	}
	ends("a listener")
	l.Unlisten(handle, fd)
	var timer Timer
	l.SetTimer(&timer, ringFunc(func() {}), time.Hour)
	ends("a timer")
	l.StopTimer(&timer)
	l.Post(func() {})
	ends("a task")
	l.turn()
	if !l.end() {
		t.Fatal("the loop does not end")
	}
	if l.Post(func() {}) {
		t.Error("the loop that ends takes a task")
	}
}

// Deadlines come before streams, and who is told of the end of a turn may have another told.
func TestEndOfATurn(t *testing.T) {
	l := idleLoop(t)
	var order []string
	note := func(what string) func() { return func() { order = append(order, what) } }
	l.Enqueue(&runFunc{func() Verdict {
		note("slice")()
		return Again
	}})
	var timer Timer
	l.Post(func() {
		l.SetTimer(&timer, ringFunc(note("deadline")), l.Now())
		l.AtTurnEnd(turnEnd(func() {
			note("turn end")()
			l.AtTurnEnd(turnEnd(note("another")))
		}))
	})
	for range 2 {
		l.turn()
	}
	if want := []string{"turn end", "another", "slice", "deadline", "slice"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}
