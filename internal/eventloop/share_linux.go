package eventloop

import "time"

// Mover is a handler that can go to another loop, with all its descriptors. Move is called on the loop that it is on,
// and reports false when it cannot go now. It posts to the other loop what has it arrive there; when Post reports
// false, that loop has ended, and the handler stays.
type Mover interface {
	Handler
	Move(to *Loop) bool
}

// A share is a step of lookStep handlers with work at the most, and of moveStep moves: a move takes a few microseconds.
const (
	lookStep = 1024
	moveStep = 32
)

// share is a runner that gives Movers to another loop.
type share struct {
	loop, to *Loop
	of       kind   // of which handlers
	want     uint32 // how much work to give
	at       uint32 // the next slot
	moved    int
	made     bool // to has just become the quiet loop, for this
}

// share begins one, with a step at once.
func (l *Loop) share(s share) {
	s.loop, l.load.sharing = l, true
	if s.Run() == Next {
		l.EnqueueShort(&s)
	}
}

// Run does a step.
func (s *share) Run() Verdict {
	t := &s.loop.slots
	for looked, moved := 0, 0; s.at < t.end && looked < lookStep && moved < moveStep; {
		slot := t.at(s.at)
		s.at++
		work := slot.units()
		if work == 0 { // there may be very many, behind which who has work would have more by the next step
			continue
		}
		if looked++; work > s.want || !slot.is(s.of) {
			continue
		}
		if m, ok := slot.handler.(Mover); ok && m.Move(s.to) {
			s.want -= work
			moved++
			s.moved++
		}
	}
	if s.at < t.end {
		return Next
	}
	s.loop.load.sharing = false
	s.parted()
	return Done
}

// retireTick is how often a loop that ends looks whether the handlers that could not go before can go now.
const retireTick = 10 * time.Millisecond

// GiveAway moves all Movers to another loop, in steps.
func (l *Loop) GiveAway(to *Loop) { l.EnqueueShort(&giveAway{loop: l, to: func() *Loop { return to }}) }

// retire ends the loop once it has given all its handlers away.
func (l *Loop) retire() {
	if !l.group.leave(l) {
		return
	}
	l.load.retiring = true
	(*retirement)(l).Ring(0)
}

// retirement is a loop that is to end.
type retirement Loop

// Ring gives away the handlers that are left.
func (r *retirement) Ring(time.Duration) {
	l := (*Loop)(r)
	l.EnqueueShort(&giveAway{loop: l, to: func() *Loop {
		if to := l.group.awayFrom(l); to != nil {
			return to
		}
		return l.group.least(l)
	}, last: true})
}

// giveAway is a runner that moves all Movers.
type giveAway struct {
	loop *Loop
	to   func() *Loop
	at   uint32
	last bool // the loop is to end
}

// Run does a step.
func (g *giveAway) Run() Verdict {
	l := g.loop
	for looked, moved := 0, 0; g.at < l.slots.end && looked < lookStep && moved < moveStep; looked++ {
		slot := l.slots.at(g.at)
		g.at++
		if m, ok := slot.handler.(Mover); ok && m.Move(g.to()) {
			moved++
		}
	}
	switch {
	case g.at < l.slots.end:
		return Next
	case !g.last || l.end():
		return Done
	}
	l.SetTimer(&l.load.retiringTick, (*retirement)(l), l.group.clock()+retireTick)
	return Done
}

// end ends the loop, unless it still has something to do.
func (l *Loop) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slots.used > 0 || l.shared.used > 1 || // the one shared handler is the loop's own
		len(l.tasks) > 0 || len(l.timers) > 0 || len(l.late) > 0 {
		return false
	}
	l.ended = true
	l.deafen() // or a handler could arrive, and be lost
	return true
}
