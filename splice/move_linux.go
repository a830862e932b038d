package splice

// share gives half of the loop's connections to another.
func (l *loop) share(to *loop) {
	every := 0
	for p := range l.movable() {
		if every++; every%2 == 0 {
			p.move(to)
		}
	}
}

// bequeath stops accepting and gives all connections to the heir. Those that are dialing or aborting are left for a
// later tick; when there are none, the loop ends.
func (l *loop) bequeath() {
	for s := range l.slots.all() {
		if a, ok := s.handler.(*acceptor); ok {
			l.removePort(a.port)
		}
	}
	for p := range l.movable() {
		p.move(l.heir)
	}
	if l.stats.active.Load() == 0 { // and otherwise Close may have ended it already
		l.ended = true
	}
}

// movable yields the pairs that another loop could take over as they are, which are those that wait for no time to pass;
// each may be moved.
func (l *loop) movable() func(yield func(*pair) bool) {
	return func(yield func(*pair) bool) {
		for s := range l.slots.all() {
			lg, ok := s.handler.(*leg)
			if !ok || lg != &lg.pair.front || !lg.pair.connected || lg.pair.list != nil {
				continue
			}
			if !yield(lg.pair) {
				return
			}
		}
	}
}

// move hands the pair to another loop, with what its pumps hold. Events that come in between are not lost: the other
// loop registers the legs for the first time, which makes its epoll look anew.
func (p *pair) move(to *loop) {
	from := p.loop
	for _, lg := range []*leg{&p.front, &p.back} {
		if lg.watched {
			from.unwatch(lg.fd)
			lg.watched = false
		}
		from.forget(lg.fd)
	}
	for _, pm := range []*pump{&p.up, &p.down} {
		if pm.pipe != nil {
			from.pipes.open.Add(^uint64(0))
			to.pipes.open.Add(1)
		}
	}
	from.stats.active.Add(^uint64(0))
	to.stats.active.Add(1)
	to.post(func() {
		p.loop = to
		p.settle()
	})
}
