package splice

import (
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// loop is what an engine keeps for one of the event loops. All of it belongs to the loop's goroutine.
type loop struct {
	*eventloop.Loop
	kernel kernel
	buffer []byte // what recv reads into; its content does not outlive a step
	pipes  pipePool
	chunks chunkPool
	shares map[*Port]*share
	talked *pair      // whose event was the only one of its turn, the last time that there was one
	errno  unix.Errno // of the step that failed last, for whoever has called it
	taken  [acceptBatch]accepted
	youth  eventloop.Timer // is set while there are young pairs

	info      unix.TCPInfo           // of a listener, or a stream
	addresses [2]unix.RawSockaddrAny // what accept, getsockname and getpeername write to
}

func newLoop(e *Engine, on *eventloop.Loop) *loop {
	l := &loop{
		Loop:   on,
		kernel: e.kernel,
		buffer: make([]byte, copySize),
		shares: make(map[*Port]*share),
	}
	l.pipes.loop, l.pipes.open = on, &e.pipes
	return l
}

// hear asks the loop to yield if one pair talks alone: its event is the only one now and was the last time. When several
// do there is enough to do on all CPUs, and to stay on this one would cost a tenth of the rate (64 clients, 64 B; 8
// streams).
func (l *loop) hear(p *pair) {
	switch {
	case !l.Single():
		l.talked = nil
	case l.talked == p:
		l.Yield()
	default:
		l.talked = p
	}
}

// end closes what the loop has. It is about to end, or the engine is.
func (l *loop) end() {
	for _, s := range l.shares {
		s.abort()
		s.end()
	}
	l.StopTimer(&l.youth)
	l.StopTimer(&l.pipes.timer)
	l.pipes.trim(len(l.pipes.free))
}
