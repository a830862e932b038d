package worker

import (
	"sync/atomic"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/histogram"
	"github.com/portsplice/portsplice/internal/listener"
)

// observe is told of the port's connections, on the loops that they are on.
func (p *port) observe(c connection.Connection) {
	if p.config.Protocol != listener.UDP { // whose flows end by a timeout
		p.durations.add(c)
	}
	if p.accessed.Load() {
		p.access.Load().Observe(c)
	}
	if tracers := p.worker.tracers.Load(); tracers != nil {
		p.tell(*tracers, happening{connection: c})
	}
}

// follows says whether anybody is told of a UDP flow that begins now.
func (p *port) follows() bool { return p.accessed.Load() || p.worker.tracers.Load() != nil }

// durations are a port's histograms. They are made for its first connection: many ports never have one.
type durations struct {
	both atomic.Pointer[struct{ connection, dial histogram.Histogram }]
}

func (d *durations) add(c connection.Connection) {
	h := d.both.Load()
	if h == nil {
		d.both.CompareAndSwap(nil, new(struct{ connection, dial histogram.Histogram }))
		h = d.both.Load()
	}
	switch c.Phase {
	case connection.Connected:
		h.dial.Add(c.Dial)
	case connection.Ended:
		h.connection.Add(c.Lasted)
	}
}

func (d *durations) read() map[string]Histogram {
	h := d.both.Load()
	if h == nil {
		return nil
	}
	return map[string]Histogram{"connection-duration": values(&h.connection), "connect-duration": values(&h.dial)}
}

func values(h *histogram.Histogram) Histogram {
	v := h.Read()
	return Histogram{Schema: histogram.Schema, Zero: v.Zero, Count: v.Count, Sum: v.Sum, Buckets: v.Buckets}
}
