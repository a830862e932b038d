package fallback

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
)

// life is what Options.Observe is told of a connection.
type life struct {
	connection.Connection
	engine *Engine
	began  time.Time
}

// begin tells that a client was accepted.
func begin(p *Port, front *net.TCPConn) *life {
	l := &life{engine: p.engine, began: time.Now()}
	l.Client, l.Backend = clientOf(front), p.backend
	l.tell(connection.Accepted)
	return l
}

// connected tells that its backend has answered.
func (l *life) connected() {
	l.Dial = time.Since(l.began)
	l.tell(connection.Connected)
}

// end tells that it ends. It is still counted.
func (l *life) end(why connection.End) {
	l.End = why
	l.tell(connection.Ended)
}

// headerFailed is end for a client that has not begun with a PROXY header as it should be.
func (l *life) headerFailed(err error) {
	switch {
	case l.engine.closing.Err() != nil:
		l.end(connection.End{By: connection.Proxy, Reason: connection.Stopped})
	case errors.Is(err, syscall.ECONNRESET):
		l.end(connection.End{By: connection.Client, Reason: connection.Reset})
	default:
		l.end(connection.End{By: connection.Client, Reason: connection.HeaderRefused, Err: err})
	}
}

func (l *life) tell(phase connection.Phase) {
	l.Phase, l.Lasted = phase, time.Since(l.began)
	l.engine.options.Load().Observe(l.Connection)
}
