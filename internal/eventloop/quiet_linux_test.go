package eventloop

import (
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// did is what a handler has done in the windows that are counted.
type did struct {
	work    uint32
	streams bool
	fixed   bool // it cannot move
}

// having gives a loop handlers that have done that; the movers tell by their number whether they have moved.
func (l *Loop) having(all []did) (movers []*mover) {
	for _, d := range all {
		m := new(mover)
		movers = append(movers, m)
		var h Handler = m
		if d.fixed {
			h = fixed{}
		}
		if handle := l.slots.take(h); d.streams {
			l.Stream(handle, d.work)
		} else {
			l.Charge(handle, d.work)
		}
	}
	l.load.streams.Store(l.load.streamed)
	l.load.seen.Store(l.slots.streams())
	return movers
}

// moved runs what is in the queue and gives the numbers of those that have moved.
func (l *Loop) moved(movers []*mover, to *Loop) (moved []int) {
	for l.Queued() {
		l.runSlice()
	}
	for i, m := range movers {
		if m.moved > 0 && m.on.Load() == to {
			moved = append(moved, i)
		}
	}
	return moved
}

// held gives a group of one loop, which nobody runs, or two, the other of which is found to be so busy.
func held(t *testing.T, loops, most int, percent int32) (g *Group, first, other *Loop) {
	t.Helper()
	g = newGroup(t, Options{Min: loops, Max: most})
	g.Hold()
	first = idleFirst(t, g)
	if loops > 1 {
		other = g.all()[1]
		stop(t, other)
		other.load.percent.Store(percent)
	}
	return g, first, other
}

// stop has a loop that runs take no turn, and so have no window, until the test ends.
func stop(t *testing.T, l *Loop) {
	t.Helper()
	stopped, end := make(chan struct{}), make(chan struct{})
	l.Post(func() {
		close(stopped)
		<-end
	})
	<-stopped
	t.Cleanup(func() { close(end) })
}

// Who talks beside streams goes to a loop without any.
func TestTalkersArePartedFromStreams(t *testing.T) {
	stream, talker := did{work: 1000, streams: true}, did{work: 100}
	for _, test := range []struct {
		name  string
		loops int
		most  int
		has   []did
		other int32 // percent
		moved []int
	}{
		{"beside a stream, to a new loop", 1, 2, []did{stream, talker, stream}, 0, []int{1}},
		{"beside a stream, to a loop without any", 2, 2, []did{talker, stream, talker}, 0, []int{0, 2}},
		{"that are half of the load", 2, 2, []did{stream, {work: 1000}}, 0, []int{1}},
		{"that are more of it", 2, 2, []did{stream, {work: 1010}}, 0, nil},
		{"that are nearly all of it", 1, 2, []did{{work: 100, streams: true}, {work: 100}, {work: 800}}, 0, nil},
		{"as little as counts", 2, 2, []did{stream, {work: talk}}, 0, []int{1}},
		{"as much as a short connection does", 2, 2, []did{stream, {work: talk - 1}, {work: talk - 1}}, 0, nil},
		{"beside a busy loop without any, to a new one", 2, 3, []did{stream, talker}, partPercent, []int{1}},
		{"without streams", 2, 2, []did{talker, talker}, 0, nil},
		{"with nowhere to go", 1, 1, []did{stream, talker}, 0, nil},
		{"that cannot move", 2, 2, []did{stream, {work: 100, fixed: true}}, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, l, other := held(t, test.loops, test.most, test.other)
			movers := l.having(test.has)
			parted := l.part(100, 0)
			if all := g.all(); len(all) > test.loops {
				other = all[test.loops]
			}
			if got := l.moved(movers, other); !slices.Equal(got, test.moved) || parted != (got != nil) {
				t.Errorf("parted %v, moved %v, want %v", parted, got, test.moved)
			}
			if quiet := g.quiet.Load(); test.moved != nil && quiet != other {
				t.Error("the loop that they have gone to is not kept for them")
			}
			if quiet := g.quiet.Load(); test.moved == nil && quiet != nil {
				t.Error("a loop is kept for nobody")
			}
			if want := test.loops; test.moved != nil && g.Len() != max(want, test.most) || test.moved == nil && g.Len() != want {
				t.Errorf("%d loops, of which there were %d", g.Len(), test.loops)
			}
		})
	}
	t.Run("to the loop that is quiet", func(t *testing.T) {
		for _, test := range []struct {
			percent int32
			moved   []int
		}{{40, []int{1}}, {halfPercent, nil}} {
			g, l, _ := held(t, 2, 3, 0)
			quiet := g.Grow()
			stop(t, quiet)
			quiet.load.percent.Store(test.percent)
			g.quiet.Store(quiet)
			movers := l.having([]did{stream, {work: 50}})
			if l.part(100, 0); !slices.Equal(l.moved(movers, quiet), test.moved) {
				t.Errorf("with %d percent of work there: want %v moved", test.percent, test.moved)
			}
		}
	})
	for _, test := range []struct {
		name    string
		streams int
		others  int32 // on the other loop
		loops   int
	}{
		{"beside few streams on all processors, to the loop with some of them", manyStreams / 2, manyStreams/2 - 1, 2},
		{"beside many, to one more", manyStreams / 2, manyStreams / 2, 3},
		{"beside many, nearly all on one loop, to one more", manyStreams - 1, 1, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newFreeGroup(t)
			g.Hold()
			l, other := idleFirst(t, g), g.Grow()
			stop(t, other)
			other.load.percent.Store(100)
			other.load.streams.Store(test.others > 0)
			other.load.seen.Store(test.others)
			movers := l.having(append(slices.Repeat([]did{stream}, test.streams), talker))
			if l.part(100, 0); g.Len() != test.loops || !slices.Equal(l.moved(movers, g.all()[test.loops-1]), []int{test.streams}) {
				t.Errorf("with %d loops, and not there", g.Len())
			}
		})
	}
	t.Run("where the other loop is busy with something else, to one more", func(t *testing.T) {
		g := newFreeGroup(t)
		g.Hold()
		l, other := idleFirst(t, g), g.Grow()
		stop(t, other)
		other.load.percent.Store(partPercent)
		movers := l.having([]did{stream, talker})
		if l.part(100, 0); g.Len() != 3 || !slices.Equal(l.moved(movers, g.all()[2]), []int{1}) {
			t.Errorf("with %d loops, and not there", g.Len())
		}
	})
	t.Run("that cannot go now", func(t *testing.T) {
		g, l, _ := held(t, 2, 2, 0)
		handle := l.slots.take(refuser{})
		l.Charge(handle, 100)
		l.having([]did{stream})
		if !l.part(100, 0) {
			t.Fatal("it is not tried")
		}
		l.moved(nil, nil)
		if g.quiet.Load() != nil || l.part(100, l.group.clock()) || !l.part(100, l.group.clock()+shareAgain) {
			t.Errorf("a loop is kept for it, or it is not tried again after %v", shareAgain)
		}
	})
}

// unwilling is a Mover that cannot go now.
type unwilling struct{ fixed }

func (unwilling) Move(*Loop) bool { return false }

// Where a loop's talkers cannot move now, the quiet loop that was made for them is given up, and that of others is not.
func TestQuietLoopOfOthers(t *testing.T) {
	for _, others := range []bool{false, true} {
		g, l, other := held(t, 2, 2, 0)
		if others {
			g.quiet.Store(other)
		}
		l.having([]did{{work: 1000, streams: true}})
		l.Charge(l.slots.take(unwilling{}), 100)
		if tried := l.part(100, 0); !tried || (g.quiet.Load() == other) != others {
			t.Errorf("that of others %v: tried %v, kept %v", others, tried, g.quiet.Load() == other)
		}
	}
}

// Talkers are parted from streams by windows in a row, in which a loop need not be so busy as to share its load.
func TestWhenTalkersAreParted(t *testing.T) {
	for _, test := range []struct {
		name    string
		silent  bool // there are only streams
		windows []int32
		moves   int
		seen    int32
	}{
		{"busy with streams", false, []int32{partPercent, partPercent}, 2, 2},
		{"once", false, []int32{partPercent, 0, partPercent}, 0, 0},
		{"hardly busy", false, []int32{partPercent - 1, partPercent - 1, partPercent - 1}, 0, 0},
		{"nobody talks", true, []int32{halfPercent - 1, halfPercent - 1}, 0, 2},
		{"nobody talks, and the load is shared", true, []int32{halfPercent, halfPercent}, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBalanced(t, Options{Min: 2})
			if test.silent {
				b.movers = [2]Handle{}
			}
			b.load.streams.Store(true)
			streams := [2]Handle{b.slots.take(new(mover)), b.slots.take(new(mover))}
			for _, percent := range test.windows {
				for _, h := range streams {
					b.Stream(h, 1000)
				}
				b.windows(percent)
			}
			if got := b.moves(); got != test.moves {
				t.Errorf("moved %d times, want %d", got, test.moves)
			}
			if seen := b.load.seen.Load(); seen != test.seen {
				t.Errorf("%d streams were seen, want %d", seen, test.seen)
			}
		})
	}
}

// refuser is a mover that cannot go now.
type refuser struct{ fixed }

func (refuser) Move(*Loop) bool { return false }

// Streams leave the quiet loop and do not come back, whoever has how much to do.
func TestStreamsKeepFromTheQuietLoop(t *testing.T) {
	has := []did{{work: 1000, streams: true}, {work: 100}, {work: 1000, streams: true}}
	t.Run("leave", func(t *testing.T) {
		g, l, other := held(t, 2, 2, 100)
		g.quiet.Store(l)
		movers := l.having(has)
		if parted, got := l.part(100, 0), l.moved(movers, other); !parted || !slices.Equal(got, []int{0, 2}) {
			t.Errorf("parted %v, moved %v, want the streams", parted, got)
		}
	})
	t.Run("but for a slice now and then", func(t *testing.T) {
		g, l, _ := held(t, 2, 2, 100)
		g.quiet.Store(l)
		if l.having([]did{{work: 10, streams: true}, {work: 100}}); l.part(100, 0) {
			t.Error("they do")
		}
	})
	t.Run("where all loops have some", func(t *testing.T) {
		g, l, other := held(t, 2, 2, 100)
		other.load.streams.Store(true)
		movers := l.having(has)
		if parted, got := l.part(100, 0), l.moved(movers, other); !parted || !slices.Equal(got, []int{1}) || g.quiet.Load() != other {
			t.Errorf("parted %v, moved %v, want the talker", parted, got)
		}
	})
	t.Run("do not come back", func(t *testing.T) {
		g, l, other := held(t, 2, 2, 0)
		g.quiet.Store(other)
		if movers := l.having(has[:1:1]); l.part(100, 0) || l.relieve(100) || l.moved(movers, other) != nil {
			t.Error("they do")
		}
		l.having(has[2:])
		if l.relieve(100) {
			t.Error("they do where there is more than one")
		}
	})
	t.Run("go to a third", func(t *testing.T) {
		g, l, quiet := held(t, 2, 3, 0)
		g.quiet.Store(quiet)
		movers := l.having([]did{has[0], has[2]})
		if !l.relieve(100) || g.Len() != 3 || len(l.moved(movers, g.all()[2])) != 1 {
			t.Errorf("with %d loops, and not there", g.Len())
		}
	})
	t.Run("but talkers may", func(t *testing.T) {
		g, l, quiet := held(t, 2, 2, 0)
		g.quiet.Store(quiet)
		movers := l.having([]did{has[1], has[1]})
		if !l.relieve(100) || len(l.moved(movers, quiet)) != 1 {
			t.Error("they do not")
		}
	})
}

// The quiet loop is kept while somebody talks there beside streams elsewhere, and a while longer.
func TestQuietLoopIsGivenUp(t *testing.T) {
	two := func(t *testing.T) (g *Group, first, quiet *Loop) {
		g, first, _ = held(t, 1, 2, 0)
		quiet = g.Grow()
		g.quiet.Store(quiet)
		return g, first, quiet
	}
	for _, test := range []struct {
		name    string
		talk    uint32 // of one handler
		streams bool
		percent int32 // of the loop that has them
		kept    bool
	}{
		{"a talker beside streams", talk, true, 100, true},
		{"short connections", talk - 1, true, 100, false},
		{"no streams", talk, false, 100, false},
		{"streams with little to do", talk, true, calmPercent - 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, first, quiet := two(t)
			first.load.streams.Store(test.streams)
			first.load.percent.Store(test.percent)
			quiet.load.streams.Store(true) // its own do not count
			quiet.load.percent.Store(100)
			quiet.Do(func() {
				handles := []Handle{quiet.slots.take(new(mover)), quiet.slots.take(new(mover))}
				windows := func(n int) {
					g.held.Store(false)
					for range n {
						for _, h := range handles {
							quiet.Charge(h, test.talk/sustained)
						}
						quiet.balance(0, 0)
					}
					g.Hold()
				}
				if windows(quietFor - 1); g.quiet.Load() != quiet {
					t.Error("it was given up early")
				}
				windows(1)
				if got := g.quiet.Load() == quiet; got != test.kept {
					t.Errorf("kept %v, want %v", got, test.kept)
				}
				for _, h := range handles {
					quiet.Forget(h)
				}
			})
		})
	}
	t.Run("and ends then", func(t *testing.T) {
		g, _, quiet := two(t)
		quiet.Do(func() {
			quiet.load.percent.Store(0)
			if g.easy(quiet) {
				t.Error("it may end while it is kept")
			}
			if g.quiet.Store(nil); !g.easy(quiet) {
				t.Error("it may not end afterwards")
			}
		})
	})
	t.Run("by its end", func(t *testing.T) {
		g, _, quiet := two(t)
		if quiet.Do(func() { g.leave(quiet) }); g.quiet.Load() != nil {
			t.Error("it is the quiet loop still")
		}
		if g.appoint(quiet) {
			t.Error("a loop that has left is made the quiet one")
		}
	})
	t.Run("by the first loop, which rests", func(t *testing.T) {
		g := newGroup(t, Options{})
		g.First().Do(func() {})
		g.quiet.Store(g.First())
		g.First().Do(func() {})
		rig.Until(t, "it is given up", func() bool { return g.quiet.Load() == nil })
	})
}

// What streams do not count: of what has gone, what cannot move, and what had no work.
func TestStreamsThatAreSeen(t *testing.T) {
	l := idleLoop(t)
	l.having([]did{{work: 1, streams: true}, {work: 1}, {work: 1, streams: true, fixed: true}, {streams: true}})
	gone := l.slots.take(new(mover))
	l.Stream(gone, 1)
	l.Forget(gone)
	if n := l.slots.streams(); n != 1 {
		t.Errorf("there are %d, want one", n)
	}
}

// Streams are those of the last window.
func TestStreamsOfAWindow(t *testing.T) {
	l := idleLoop(t)
	l.group.Hold() // or what is seen may be counted anew
	l.load.seen.Store(5)
	for _, want := range []bool{true, false} {
		if want {
			l.Stream(Handle{}, 1)
		}
		l.load.sampled = true
		l.group.pass(loadWindow)
		l.measure()
		if got := l.load.streams.Load(); got != want {
			t.Errorf("streams %v, want %v", got, want)
		}
		if seen := l.load.seen.Load(); (seen == 5) != want {
			t.Errorf("of a window with streams (%v) %d were seen", want, seen)
		}
	}
}

// TestTalkersHaveALoopWithoutStreams: who has events time and again beside streams goes to another loop, where none of these
// comes before there is no talk.
func TestTalkersHaveALoopWithoutStreams(t *testing.T) {
	t.Run("of two", func(t *testing.T) {
		g := newFreeGroup(t)
		streams, silence := talkBeside(t, g, 2)
		if loops, processors := g.Len(), runtime.GOMAXPROCS(0); loops != 2 || processors != 2 {
			t.Errorf("for few streams there are %d loops and %d processors", loops, processors)
		}
		silence()
		rig.Until(t, "each loop has a stream", func() bool { return streams[0].on.Load() != streams[1].on.Load() })
	})
	t.Run("beyond GOMAXPROCS", func(t *testing.T) {
		g := newFreeGroup(t)
		_, silence := talkBeside(t, g, 2*manyStreams)
		rig.Until(t, "the streams have as many loops as without it", func() bool { return g.Len() == 3 })
		rig.Until(t, "there is a processor for each", func() bool { return runtime.GOMAXPROCS(0) == 3 })
		silence()
		rig.Until(t, "there are two loops", func() bool { return g.Len() == 2 })
		rig.Until(t, "GOMAXPROCS is what it was", func() bool { return runtime.GOMAXPROCS(0) == 2 })
	})
}

// newFreeGroup gives a group that may have as many loops as there are processors, which are two, and one more at times. When it has been closed
// there are two again.
func newFreeGroup(t *testing.T) *Group {
	t.Helper()
	had := runtime.GOMAXPROCS(2)
	t.Cleanup(func() {
		if now := runtime.GOMAXPROCS(had); now != 2 || ownProcessors() != had {
			t.Errorf("GOMAXPROCS is %d in the end, of which %d were added", now, had-ownProcessors())
		}
	})
	g := newGroup(t, Options{})
	g.fixed, g.cpus = false, 2
	return g
}

// There may be one loop more than GOMAXPROCS, unless somebody has set that, or how many loops there may be.
func TestOneMoreLoop(t *testing.T) {
	cpus := runtime.NumCPU()
	for _, test := range []struct {
		name         string
		environment  string
		processors   int
		max          int
		alone, quiet int
	}{
		{"nobody", "", cpus + 1, 0, cpus + 1, cpus + 2},
		{"nobody, in a way that counts", "0", cpus + 1, 0, cpus + 1, cpus + 2},
		{"the environment", strconv.Itoa(cpus + 1), cpus + 1, 0, cpus + 1, cpus + 1},
		{"whoever has made the group", "", cpus + 1, 3, 3, 3},
	} {
		t.Run("set by "+test.name, func(t *testing.T) {
			t.Setenv("GOMAXPROCS", test.environment)
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(test.processors))
			g := newGroup(t, Options{Max: test.max})
			if alone, quiet := g.most(false), g.most(true); alone != test.alone || quiet != test.quiet {
				t.Errorf("%d, with a quiet one %d; want %d and %d", alone, quiet, test.alone, test.quiet)
			}
		})
	}
	t.Run("while CPUs are left free", func(t *testing.T) { // as by a worker before its first port is served
		g := newFreeGroup(t)
		g.cpus = 3
		if most := g.most(true); most != 2 {
			t.Errorf("there may be %d", most)
		}
		runtime.GOMAXPROCS(3)
		if most := g.most(true); most != 4 {
			t.Errorf("with all CPUs there may be %d", most)
		}
		runtime.GOMAXPROCS(2)
	})
	t.Run("where there is one", func(t *testing.T) {
		g := newFreeGroup(t)
		g.cpus = 1
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		if most := g.most(true); most != 1 {
			t.Errorf("there may be %d", most)
		}
	})
	t.Run("of all that is busy", func(t *testing.T) {
		g := newFreeGroup(t)
		g.Hold()
		l := idleFirst(t, g)
		stop(t, g.Grow())
		quiet := g.all()[1]
		for _, l := range g.all() {
			l.load.percent.Store(100)
		}
		relieved := func(loops int, where string) {
			t.Helper()
			if l.relieve(100) != (loops == 3) || g.Len() != loops {
				t.Fatalf("there are %d loops where %s", g.Len(), where)
			}
		}
		streams := slices.Repeat([]did{{work: 1000, streams: true}}, manyStreams)
		l.having(streams[1:])
		g.quiet.Store(quiet)
		relieved(2, "streams are few")
		l.having(streams[:1])
		g.quiet.Store(nil)
		relieved(2, "none is quiet")
		g.quiet.Store(quiet)
		relieved(3, "streams are many beside a quiet one")
		g.quiet.Store(nil)
		third := g.all()[2]
		rig.Until(t, "there is a processor for it", func() bool { return runtime.GOMAXPROCS(0) == 3 })
		if most := g.most(true); most != 3 {
			t.Errorf("there may be %d: what was added counts", most)
		}
		if !g.surplus(third) {
			t.Error("it stays when none is quiet")
		}
		if g.quiet.Store(l); g.surplus(third) {
			t.Error("it ends while one is quiet")
		}
		g.quiet.Store(nil)
	})
}

// What others do to GOMAXPROCS is not undone.
func TestProcessorsOfOthers(t *testing.T) {
	had := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(had)
	for _, others := range []int{2, 7} {
		addProcessors(1)
		if runtime.GOMAXPROCS(others); ownProcessors() != others {
			t.Errorf("of %d that somebody has set %d count", others, ownProcessors())
		}
		if addProcessors(-1); runtime.GOMAXPROCS(0) != others {
			t.Errorf("%d that somebody has set have become %d", others, runtime.GOMAXPROCS(0))
		}
	}
	addProcessors(1)
	addProcessors(1)
	if addProcessors(-1); runtime.GOMAXPROCS(0) != 8 || ownProcessors() != 7 {
		t.Errorf("7 and one more are %d and %d", ownProcessors(), runtime.GOMAXPROCS(0)-ownProcessors())
	}
	addProcessors(-1)
}

// talkBeside gives a group streams and a talker, and waits until that has a loop without any.
func talkBeside(t *testing.T, g *Group, n int) (streams []*roamer, silence func()) {
	t.Helper()
	first := g.First()
	var silent atomic.Bool
	for range n {
		streams = append(streams, &roamer{streams: true, silent: &silent})
	}
	talker := &roamer{silent: &silent}
	first.Do(func() {
		for _, r := range append(slices.Clip(streams), talker) {
			var ready func()
			r.fd, ready = event(t)
			r.arrive(first)
			ready()
		}
	})
	rig.Until(t, "the talker has a loop without streams", func() bool {
		on := talker.on.Load()
		return !slices.ContainsFunc(streams, func(r *roamer) bool { return r.on.Load() == on })
	})
	return streams, func() { silent.Store(true) }
}

// roamer is a mover that streams without end, or has an event at each turn until it is silent.
type roamer struct {
	fd      int
	handle  Handle
	on      atomic.Pointer[Loop]
	streams bool
	silent  *atomic.Bool
}

func (r *roamer) arrive(l *Loop) {
	r.handle, _ = l.Watch(r.fd, edge, r) // a test without descriptors hangs, and fails
	if r.on.Store(l); r.streams {
		l.Enqueue(r)
	}
}

func (r *roamer) Ready(uint32) {
	if !r.streams && !r.silent.Load() {
		_, _ = unix.Write(r.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // which is an event again
	}
}

func (r *roamer) Run() Verdict {
	for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
	}
	r.on.Load().Stream(r.handle, 1)
	return Next
}

func (r *roamer) Move(to *Loop) bool {
	from := r.on.Load()
	from.Unwatch(r.handle, r.fd)
	if r.streams {
		from.Dequeue(r)
	}
	return to.Post(func() { r.arrive(to) })
}
