package splice

// Legs gives the descriptors of all legs, for tests that look at their sockets.
func (e *Engine) Legs() (fds []int) {
	for _, l := range e.loops {
		l.do(func() {
			for s := range l.slots.all() {
				if lg, ok := s.handler.(*leg); ok {
					fds = append(fds, lg.fd)
				}
			}
		})
	}
	return fds
}

// Grow starts another loop, as if the last one had been saturated.
func (e *Engine) Grow() {
	e.grow(e.lastLoop())
	e.Hold()
}

// Hold keeps the last loop from being started or ended by its load.
func (e *Engine) Hold() {
	l := e.lastLoop()
	l.do(func() {
		l.overload = func(*loop) {}
		if l.idle != nil {
			l.idle = l.overload
		}
	})
}

// Retire ends the last loop, as if it had had little to do.
func (e *Engine) Retire() { e.retire(e.lastLoop()) }

func (e *Engine) lastLoop() *loop {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loops[len(e.loops)-1]
}
