package splice

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
)

// accepted tells that the pair begins.
func (p *pair) accepted() {
	if p.settings.Observe != nil {
		p.settings.Observe(p.connection(connection.Accepted, p.began))
	}
}

// connected tells that its backend has answered.
func (p *pair) connected() {
	if p.settings.Observe != nil {
		now := p.share.loop.Now()
		p.answered = uint32(min((now-p.began)/time.Microsecond, math.MaxUint32))
		p.settings.Observe(p.connection(connection.Connected, now))
	}
}

// ended tells that it ends. The pair is still counted.
func (p *pair) ended(why connection.End) {
	if p.settings.Observe != nil {
		c := p.connection(connection.Ended, p.share.loop.Now())
		c.End = why
		p.settings.Observe(c)
	}
}

func (p *pair) connection(phase connection.Phase, now time.Duration) Connection {
	return Connection{
		Phase:       phase,
		Client:      p.client,
		Backend:     p.settings.backend,
		Dial:        time.Duration(p.answered) * time.Microsecond,
		Lasted:      now - p.began,
		FromClient:  p.pumps[front].total,
		FromBackend: p.pumps[back].total,
	}
}

// cause is why a pair ends, as its state has it.
func (p *pair) cause() connection.End {
	switch {
	case p.failed != neither:
		return connection.Failure(p.failed.name(), unix.Errno(p.errno))
	case p.pumps[front].state == over && p.pumps[back].state == over:
		return connection.End{By: p.first.name(), Reason: connection.Closed}
	}
	return connection.End{By: connection.Proxy, Reason: connection.Stopped}
}

func (s side) name() connection.Side {
	if s == front {
		return connection.Client
	}
	return connection.Backend
}
