package eventloop

import (
	"sync/atomic"
	"time"
)

const (
	// loadWindow is how often a loop's load is found out.
	loadWindow = 50 * time.Millisecond

	// One turn in sampledTurns has the clock read, three times. In User Mode Linux that is a system call: when every turn with
	// a wait had it read, one SCTP client made 0.66 to 0.82 of the exchanges. A wait that brought nothing has the next turn
	// sampled, so that an idle loop is known to be one.
	sampledTurns = 16

	// A loop is saturated from busyPercent on, and then another may be started for it. It also gives work to one that
	// is there if that has so much less to do, and it has itself more than half of what it could.
	busyPercent   = 85
	halfPercent   = 50
	unevenPercent = 30
	sustained     = 2 // windows in a row

	// One loop fewer would do with ease if the load of all were below easyPercent for each of the others.
	easyPercent = 60
	easyFor     = 40 // windows in a row

	// shareAgain is how long a loop that had nothing to share waits before it looks again.
	shareAgain = time.Second
)

// load is how busy a loop is: the share of time that it is not blocked in epoll_wait. Time that its thread waits for
// a CPU counts as busy if there was something to do; CPU time alone would hide it.
type load struct {
	percent atomic.Int32 // in the last window
	placed  atomic.Int32 // connections that were placed here since
	streams atomic.Bool  // there was something of streams in the last window
	seen    atomic.Int32 // streams in the last window that was counted; none, if there were none in a window since

	skip         int  // turns until the next that is sampled
	sampled      bool // this turn is
	began, woke  time.Duration
	waited       time.Duration // in the sampled turns of this window
	worked       time.Duration
	since        time.Duration // when the window began
	streamed     bool          // there was something of streams in this window
	busy, easy   int           // windows in a row
	needless     int           // windows in a row in which the quiet loop was not needed
	nextShare    time.Duration
	nextPart     time.Duration
	sharing      bool // a share is under way
	retiring     bool
	retiringTick Timer
}

// begin is called before a turn looks for events.
func (o *load) begin(g *Group) {
	if o.sampled = o.skip == 0; o.sampled {
		o.began = g.clock()
		return
	}
	o.skip--
}

// looked is called after it. It gives the time if it has read it.
func (o *load) looked(g *Group) (now time.Duration, read bool) {
	if o.sampled {
		o.woke = g.clock()
	}
	return o.woke, o.sampled
}

// measure is called at the end of a turn.
func (l *Loop) measure() {
	o := &l.load
	if !o.sampled {
		return
	}
	now := l.group.clock()
	o.waited += o.woke - o.began
	o.worked += now - o.woke
	o.skip = sampledTurns - 1
	if now-o.since < loadWindow {
		return
	}
	percent := int32(100 * o.worked / max(o.waited+o.worked, 1))
	o.since, o.waited, o.worked = now, 0, 0
	o.percent.Store(percent)
	o.placed.Store(0)
	if o.streams.Store(o.streamed); !o.streamed {
		o.seen.Store(0)
	}
	o.streamed = false
	l.balance(percent, now)
}

// Load is the loop's load in its last window, in percent, for any goroutine. It is for tests.
func (l *Loop) Load() int32 { return l.load.percent.Load() }

// balance acts on the load of a window: it gives work away, or ends the loop.
func (l *Loop) balance(percent int32, now time.Duration) {
	o := &l.load
	if l.group.held.Load() || o.retiring {
		return
	}
	enough := int32(halfPercent)
	if o.streams.Load() {
		enough = partPercent
	}
	busy := percent >= enough && !o.sharing // a share, which has several turns, goes by what is counted
	if l.group.quiet.Load() == l {
		l.keepQuiet(busy)
	}
	if !busy {
		o.busy = 0
	} else if o.busy++; o.busy == 1 {
		l.slots.clearWork() // what is counted from now on is of the windows that decide
	} else if o.busy >= sustained && (now >= o.nextShare || o.streams.Load()) {
		o.busy = 0
		if o.streams.Load() {
			o.seen.Store(l.slots.streams())
		}
		if !l.part(percent, now) && percent >= halfPercent && now >= o.nextShare && !l.relieve(percent) {
			o.nextShare = now + shareAgain
		}
	}
	if l.group.surplus(l) {
		l.retire()
	} else if !l.group.easy(l) {
		o.easy = 0
	} else if o.easy++; o.easy >= easyFor {
		o.easy = 0
		l.retire()
	}
}

// relieve gives a part of the loop's work to one that has less to do, or to a new one. It reports false when that
// cannot be done, or would bring nothing.
func (l *Loop) relieve(percent int32) bool {
	to, most := l.group.awayFrom(l), l.group.most(l.group.quiet.Load() != nil && l.group.manyStreams())
	spare := int32(0)
	if to != nil {
		spare = to.load.percent.Load()
	}
	switch {
	case to != nil && percent-spare >= unevenPercent:
	case percent >= busyPercent && l.group.Len() < most:
		to, spare = nil, 0
	default:
		return false
	}
	all := l.slots.work(anything, anyWork)
	want := uint32(uint64(all) * uint64(percent-spare) / uint64(2*percent))
	if l.slots.work(anything, want) < all/16 { // one handler has it all, or none can be moved
		return false
	}
	if to == nil {
		if to = l.group.grow(most); to == nil {
			return false
		}
	}
	l.share(share{to: to, want: want})
	return true
}

// clearWork begins to count the handlers' work.
func (t *table) clearWork() {
	for i := range t.end {
		t.at(i).work = 0
	}
}

// anyWork is no limit of work: twice what a handler can have.
const anyWork = ^uint32(0)

// work is the sum of the work of all handlers, or, of a kind or with a limit, of those Movers that are so and have no more than
// that each.
func (t *table) work(k kind, limit uint32) (sum uint32) {
	for i := range t.end {
		s := t.at(i)
		if s.work == 0 {
			continue
		}
		if k != anything || limit != anyWork {
			if _, ok := s.handler.(Mover); !ok || !s.is(k) || s.units() > limit {
				continue
			}
		}
		sum += s.units()
	}
	return sum
}
