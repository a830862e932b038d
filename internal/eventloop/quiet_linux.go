package eventloop

import (
	"slices"
	"time"
)

// A loop that carries streams takes all the CPU time that it gets, so presumably the scheduler has it wait for a CPU whenever
// there are more threads than CPUs, and what is small on it waits, too, where a thread that sleeps between small messages is let
// in. So who talks beside streams is taken to a loop without any, and streams are kept from there while that is so: a group
// has one quiet loop at the most. (An exchange of 64 B beside 8 streams, all on two CPUs: p50 16 to 33 us where it was 174 to 291.) Beside
// many streams there is one loop more than CPUs: their rate is higher then, and the exchange waits longer (docs/performance.md).
const (
	// A talker has had so many events, or slices of messages, and none of a stream in the window that is counted, of 50 ms:
	// 80 exchanges a second, fewer of large messages, and more events than most short connections have in their lives. Those
	// stay: on the loop of the streams they come before these.
	talk = 8

	// Streams that are less than a streamPart of a loop's work are nothing to flee from.
	streamPart = 8

	// So many streams, seen in the window that is counted, are worth a loop more than there are CPUs, which is kept as long as there is a
	// quiet one. With it the streams have 1.3 times the rate beside an exchange where they are 32, 1.2 where they are 64, and where they
	// are 16 no more that could be told from noise. Not all are seen in one window: of 16 there were 14, of 32 20.
	manyStreams = 16

	// Who talks beside streams is parted from them from partPercent of a loop on. The quiet loop is given up after quietFor
	// windows without a talker on it, or without streams elsewhere that keep a loop busy for calmPercent.
	partPercent = 25
	calmPercent = 10
	quietFor    = 40
)

// kind is what a handler has done in the windows that are counted.
type kind uint8

const (
	anything kind = iota
	talking       // talk or more, and nothing of a stream
	streaming
)

// is says whether the slot's handler is of that kind.
func (s *slot) is(k kind) bool {
	switch k {
	case talking:
		return s.work&streamed == 0 && s.work >= talk
	case streaming:
		return s.work&streamed != 0
	}
	return true
}

// streams is how many Movers have had something of a stream.
func (t *table) streams() (n int32) {
	for i := range t.end {
		if s := t.at(i); s.units() > 0 && s.is(streaming) {
			if _, ok := s.handler.(Mover); ok {
				n++
			}
		}
	}
	return n
}

// manyStreams says whether the loops have seen many.
func (g *Group) manyStreams() bool {
	n := int32(0)
	for _, l := range g.all() {
		n += l.load.seen.Load()
	}
	return n >= manyStreams
}

// part begins to take talkers to the quiet loop, or streams from it. It reports false if there is nothing to part, or no room.
func (l *Loop) part(percent int32, now time.Duration) bool {
	if !l.load.streams.Load() || now < l.load.nextPart {
		return false
	}
	g, slots := l.group, &l.slots
	all := slots.work(anything, anyWork)
	if slots.work(streaming, anyWork) < all/streamPart {
		return false
	}
	quiet := g.quiet.Load()
	if quiet == l {
		to := g.least(l)
		if to != nil {
			l.share(share{to: to, of: streaming, want: anyWork})
		}
		return to != nil
	}
	said := uint64(slots.work(talking, anyWork))
	if said == 0 {
		return false
	}
	// Half of a loop is left to talk that comes: what is more is the load that loops share.
	room := int32(halfPercent)
	if quiet != nil {
		room -= quiet.load.percent.Load()
	}
	if said*uint64(percent) > uint64(all)*uint64(max(room, 0)) {
		return false
	}
	made := quiet == nil
	if made {
		quiet = g.makeQuiet(l)
	}
	if quiet != nil {
		l.share(share{to: quiet, of: talking, want: anyWork, made: made})
	}
	return quiet != nil
}

// makeQuiet makes another loop than l, which has streams, the quiet one: one without any and with little to do, a new one, also where
// the one with the least to do is busy with something else than streams, or that one, whose streams will go. It gives nil if there is
// none, or there has just been made one.
func (g *Group) makeQuiet(l *Loop) *Loop {
	var quiet *Loop
	for _, other := range g.all() {
		if !other.load.streams.Load() && other.load.percent.Load() < partPercent {
			quiet = other
		}
	}
	least := g.least(l)
	if quiet == nil {
		quiet = g.grow(g.most(g.manyStreams() || least != nil && !least.load.streams.Load()))
	}
	if quiet == nil {
		quiet = least
	}
	if quiet == nil || !g.appoint(quiet) {
		return nil
	}
	return quiet
}

// appoint makes a loop the quiet one, unless there is one, or the loop is about to end.
func (g *Group) appoint(quiet *Loop) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.all(), quiet) && g.quiet.CompareAndSwap(nil, quiet)
}

// keepQuiet is called on the quiet loop, for each window, and gives it up when it is not needed any more.
func (l *Loop) keepQuiet(busy bool) {
	o := &l.load
	if o.needless++; o.needless%sustained == 0 {
		if l.slots.work(talking, anyWork) > 0 && l.group.streamsBeside(l) {
			o.needless = 0
		}
		if !busy && !o.sharing { // else it is done for busy windows, when the share has ended
			l.slots.clearWork()
		}
	}
	if o.needless >= quietFor {
		o.needless = 0
		l.group.quiet.CompareAndSwap(l, nil)
	}
}

// streamsBeside says whether another loop has streams that what is small would wait for.
func (g *Group) streamsBeside(l *Loop) bool {
	for _, other := range g.all() {
		if other != l && other.load.streams.Load() && other.load.percent.Load() >= calmPercent {
			return true
		}
	}
	return false
}

// awayFrom gives the loop for what l gives away, nil if there is none: streams do not go to the quiet one.
func (g *Group) awayFrom(l *Loop) *Loop {
	if l.load.streams.Load() {
		return g.least(l, g.quiet.Load())
	}
	return g.least(l)
}

// parted is called when a share of talkers or streams has come to its end. Where none of them could go, it is tried later.
func (s *share) parted() {
	if s.of == anything || s.moved > 0 {
		return
	}
	s.loop.load.nextPart = s.loop.group.clock() + shareAgain
	if s.made {
		s.loop.group.quiet.CompareAndSwap(s.to, nil)
	}
}
