package eventloop

// A loop that carries streams takes all the CPU time that it gets, so the scheduler has it wait for a CPU whenever there are
// more threads than CPUs, and what is small on it waits, too. A thread that sleeps between small messages is let in at once.
// So who talks beside streams is taken to a loop without any, and streams are kept from there while that is so: a group has
// one quiet loop at the most. (An exchange of 64 B beside 8 streams, two CPUs: p50 291 -> 24 us, the streams as fast.)
const (
	// A talker has had so many events and no slice in the windows that are counted: 80 a second, which is more than a
	// short connection has in its life. Those stay: on the loop of the streams they come before these.
	talk = 8

	// The quiet loop is given up after quietFor windows without talk, or without streams that keep a loop busier than
	// calmPercent.
	quietFor    = 40
	calmPercent = 25
)

// kind is what a handler has done in the windows that are counted.
type kind uint8

const (
	anything kind = iota
	talking       // events, talk or more, and no slice
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

// part begins to take talkers to the quiet loop, or streams from it. It reports false if there is nothing to part.
func (l *Loop) part(percent int32) bool {
	if !l.load.streams.Load() {
		return false
	}
	if l.group.quiet.Load() == l {
		to := l.group.least(l)
		return to != nil && l.share(to, streaming, anyWork)
	}
	said := l.slots.work(talking, anyWork)
	if said == 0 {
		return false
	}
	to := l.group.quietBeside(l)
	if to == nil {
		return false
	}
	// Streams that it still has do not count: they go.
	room := max(busyPercent-to.load.percent.Load(), 0)
	if all := l.slots.work(anything, anyWork); !to.load.streams.Load() &&
		uint64(said)*uint64(percent) > uint64(all)*uint64(room) {
		return false
	}
	return l.share(to, talking, anyWork)
}

// quietBeside gives the quiet loop. If there is none it makes one of another loop than l: of one without streams, of a new
// one, or of the one with the least to do, whose streams will go. It gives nil where l is alone.
func (g *Group) quietBeside(l *Loop) *Loop {
	if quiet := g.quiet.Load(); quiet != nil {
		return quiet
	}
	var quiet *Loop
	for _, other := range g.all() {
		if other != l && !other.load.streams.Load() {
			quiet = other
		}
	}
	if quiet == nil {
		quiet = g.grow(g.most())
	}
	if quiet == nil {
		quiet = g.least(l)
	}
	if quiet == nil || !g.quiet.CompareAndSwap(nil, quiet) {
		return nil // or another loop has just made one: next time
	}
	return quiet
}

// keepQuiet is called on the quiet loop, for each window, and gives it up when it is not needed any more.
func (l *Loop) keepQuiet() {
	o := &l.load
	o.needless++
	if o.events >= talk/sustained && l.group.streamsBeside(l) {
		o.needless = 0
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
