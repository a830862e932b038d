package eventloop

import (
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Options are the settings of a Group. The zero value is useful.
type Options struct {
	Min int // loops at least; zero means one
	Max int // loops at most; zero means GOMAXPROCS, as it is when another is wanted, and at times one more (most)
}

// Group is one loop or several that share a load. Its methods may be called from any goroutine.
type Group struct {
	options Options
	begun   time.Time // the loops' clocks count from here
	fixed   bool      // the environment sets GOMAXPROCS
	cpus    int       // of the machine, or those that the process may use
	held    atomic.Bool

	mu      sync.Mutex
	loops   atomic.Pointer[[]*Loop] // replaced as a whole, under mu; the first is always there
	quiet   atomic.Pointer[Loop]    // is kept for talkers; nil: none is
	leaving []*Loop                 // they end when they have given their handlers away
	closed  bool
}

// New makes a group, whose first loop waits for something to do.
func New(o Options) (*Group, error) {
	set, _ := strconv.Atoi(os.Getenv("GOMAXPROCS")) // the runtime ignores what is no number, too
	g := &Group{options: o, begun: time.Now(), fixed: set > 0, cpus: runtime.NumCPU()}
	first, err := newLoop(g, 0)
	if err != nil {
		return nil, err
	}
	g.loops.Store(&[]*Loop{first})
	for range o.Min - 1 {
		g.grow(o.Min)
	}
	return g, nil
}

// clock is the time since the group's start.
func (g *Group) clock() time.Duration { return time.Since(g.begun) }

// First gives the loop that is always there.
func (g *Group) First() *Loop { return g.all()[0] }

// Len is how many loops there are now.
func (g *Group) Len() int { return len(g.all()) }

func (g *Group) all() []*Loop { return *g.loops.Load() }

// Place gives the loop for a new connection that was taken on the loop on: the one with the least to do. Connections
// that were placed since a loop's load was found out count for one percent each.
func (l *Loop) Place() *Loop {
	all := l.group.all()
	if len(all) == 1 {
		return all[0]
	}
	to, least := l, l.pressure()
	for _, other := range all {
		if p := other.pressure(); p < least {
			to, least = other, p
		}
	}
	to.load.placed.Add(1)
	return to
}

func (l *Loop) pressure() int32 { return l.load.percent.Load() + l.load.placed.Load() }

// least gives the one of the others with the least to do, nil if there are none.
func (g *Group) least(but ...*Loop) (least *Loop) {
	for _, l := range g.all() {
		if !slices.Contains(but, l) && (least == nil || l.pressure() < least.pressure()) {
			least = l
		}
	}
	return least
}

// Hold keeps the group from starting and ending loops, and from moving handlers, by itself. It is for tests.
func (g *Group) Hold() { g.held.Store(true) }

// Grow starts another loop. It gives nil when the group is closed, or no descriptor is left. It is for tests; a group
// that needs another loop starts one by itself.
func (g *Group) Grow() *Loop { return g.grow(math.MaxInt) }

// grow starts another loop, unless there are as many as there may be.
func (g *Group) grow(most int) *Loop {
	g.mu.Lock()
	defer g.mu.Unlock()
	had := g.all()
	if g.closed || len(had) >= most {
		return nil
	}
	l, err := newLoop(g, len(had))
	if err != nil { // no descriptors: those that are there go on
		return nil
	}
	l.extra = !g.fixed && len(had) >= ownProcessors()
	l.mu.Lock()
	l.start()
	l.mu.Unlock()
	loops := append(append([]*Loop(nil), had...), l)
	g.loops.Store(&loops)
	return l
}

// most is how many loops there may be: with oneMore, for which a quiet loop is the reason, one more than Go's processors. There is none more
// where somebody has left CPUs free, nor on one CPU: there an exchange had 0.6 to 0.7 of its p50, but the streams 0.8 of their rate at half
// as much CPU again.
func (g *Group) most(oneMore bool) int {
	if g.options.Max > 0 {
		return g.options.Max
	}
	most := ownProcessors()
	if oneMore && !g.fixed && most > 1 && most >= g.cpus {
		most++
	}
	return most
}

// processors is what loops have added to GOMAXPROCS. A loop keeps one of Go's processors while it is not blocked, so that one
// more loop than there are would wait for another's, and that for as long as 10 ms (forcePreemptNS in runtime/proc.go).
var processors struct {
	sync.Mutex // held by who adds
	last       atomic.Pointer[addition]
}

// addition is how many were added, and GOMAXPROCS with them: if that is another now, somebody else has set it since.
type addition struct{ added, set int }

// now gives GOMAXPROCS, and how many of it were added.
func (a *addition) now() (all, added int) {
	if all = runtime.GOMAXPROCS(0); a != nil && all == a.set {
		added = a.added
	}
	return all, added
}

// addProcessors changes GOMAXPROCS, which is the whole process's, unless somebody else has taken away what was added. Everybody
// stands still for it for a moment, once a garbage collection that is under way has ended.
func addProcessors(n int) {
	processors.Lock()
	defer processors.Unlock()
	if all, added := processors.last.Load().now(); added+n >= 0 {
		processors.last.Store(&addition{added: added + n, set: all + n})
		runtime.GOMAXPROCS(all + n)
	}
}

// ownProcessors is GOMAXPROCS as it is without that.
func ownProcessors() int {
	all, added := processors.last.Load().now()
	return all - added
}

// surplus says whether the loop is the last of more than there may be: none is quiet any more, and there was one more for that.
func (g *Group) surplus(l *Loop) bool {
	all := g.all()
	return all[len(all)-1] == l && len(all) > max(g.most(g.quiet.Load() != nil), g.options.Min)
}

// easy says whether the loop is the last and could be done without.
func (g *Group) easy(l *Loop) bool {
	all := g.all()
	if len(all) <= max(1, g.options.Min) || all[len(all)-1] != l || g.quiet.Load() == l {
		return false
	}
	sum := int32(0)
	for _, other := range all {
		sum += other.load.percent.Load()
	}
	return int(sum) <= easyPercent*(len(all)-1)
}

// Shrink ends the last loop, if it is not the first, once its handlers are on others. It is for tests.
func (g *Group) Shrink() {
	all := g.all()
	if last := all[len(all)-1]; len(all) > 1 {
		last.Do(last.retire)
	}
}

// leave takes a loop out of those that new handlers come to.
func (g *Group) leave(l *Loop) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.all()
	if g.closed || len(all) == 1 || all[len(all)-1] != l {
		return false
	}
	g.quiet.CompareAndSwap(l, nil)
	loops := all[: len(all)-1 : len(all)-1]
	g.loops.Store(&loops)
	g.leaving = append(slices.DeleteFunc(g.leaving, (*Loop).hasEnded), l)
	return true
}

// Close ends the loops, and returns when they have ended. What their handlers hold is for their owners to close before,
// or by AtEnd.
func (g *Group) Close() {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	loops := append(append([]*Loop(nil), g.leaving...), g.all()...)
	g.mu.Unlock()
	for _, l := range loops {
		if first {
			l.Post(func() { l.ended = true })
		}
		<-l.done
	}
}
