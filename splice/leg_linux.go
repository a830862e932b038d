package splice

import "golang.org/x/sys/unix"

// leg is one side of a pair: a connected socket, and what epoll was told about it.
type leg struct {
	pair    *pair
	fd      int    // -1 once closed
	events  uint32 // what it is watched for, beside errors and hang-ups
	watched bool
}

func (lg *leg) ready(events uint32) { lg.pair.ready(lg, events) }

// inEvents come with whatever calls for a read: bytes, end of file, and urgent data, at which reads stop.
const inEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI

// watchFor tells epoll what the leg waits for, if that has changed; again, if the state that it waits for may exist
// already and have been told. Both make epoll look anew.
func (lg *leg) watchFor(events uint32, again bool) error {
	l := lg.pair.loop
	switch {
	case lg.fd < 0:
	case !lg.watched:
		if err := l.watch(lg.fd, events|unix.EPOLLET, lg); err != nil {
			return err
		}
		lg.watched = true
	case events != lg.events || again:
		l.rewatch(lg.fd, events|unix.EPOLLET)
	}
	lg.events = events
	return nil
}

// close ends the leg in the ordinary way.
func (lg *leg) close() {
	if lg.fd >= 0 {
		lg.pair.loop.forget(lg.fd)
		closeFD(lg.fd)
		lg.fd = -1
	}
}

// reset ends the leg so that its peer sees a reset.
func (lg *leg) reset() {
	if lg.fd >= 0 {
		lg.pair.loop.forget(lg.fd)
		closeWithReset(lg.fd)
		lg.fd = -1
	}
}

// lastError takes the failure that the socket has waiting. A hang-up without one is not a failure: both
// directions have ended in order.
func (lg *leg) lastError(events uint32) unix.Errno {
	if events&unix.EPOLLERR == 0 {
		return 0
	}
	return pendingError(lg.fd)
}
