package splice

// Legs gives the descriptors of all legs, for tests that look at their sockets.
func (e *Engine) Legs() (fds []int) {
	e.loop.do(func() {
		for fd, s := range e.loop.slots {
			if _, ok := s.handler.(*leg); ok {
				fds = append(fds, fd)
			}
		}
	})
	return fds
}
