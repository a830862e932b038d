package worker

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/connection"
)

// traceRoom is how many events wait for whoever has asked, at 250 bytes each; what is more is dropped. A terminal over ssh
// that stands still for a tenth of a second has missed none at 10,000 a second.
const traceRoom = 1024

// tracer is somebody who is told of events. There are none, mostly, and then an event costs a look at a pointer.
type tracer struct {
	ports   config.Pattern // nil: all
	events  chan happening
	dropped atomic.Uint64 // since the last that was told
}

func (t *tracer) follows(p *port) bool {
	return t.ports == nil || t.ports.Contain(p.config.Protocol, p.config.Frontend)
}

// happening is an event as the loops tell of it. Text is made of it elsewhere.
type happening struct {
	at         time.Time
	port       *port
	connection connection.Connection // or else:
	operation  string
	err        error
}

// report is told of the port's failures.
func (p *port) report(op string, client, backend netip.AddrPort, err error) {
	p.failures.Report(op, client, backend, err)
	if tracers := p.worker.tracers.Load(); tracers != nil {
		p.tell(*tracers, happening{
			operation: op, err: err, connection: connection.Connection{Client: client, Backend: backend},
		})
	}
}

// tell hands an event to those who have asked for the port's, and never waits for them.
func (p *port) tell(tracers []*tracer, h happening) {
	h.at, h.port = time.Now(), p
	for _, t := range tracers {
		if !t.follows(p) {
			continue
		}
		select {
		case t.events <- h:
		default:
			t.dropped.Add(1)
		}
	}
}

// trace answers with events until whoever has asked goes away.
func (w *Worker) trace(conn *net.UnixConn, which string) {
	defer func() { _ = conn.Close() }() // nobody hears more
	t := &tracer{events: make(chan happening, traceRoom)}
	var err error
	if which != "" {
		t.ports, err = config.ParsePattern(which)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = answer(conn, fail, err)
		return
	}
	w.changeTracers(func(all []*tracer) []*tracer { return append(all, t) })
	defer w.changeTracers(func(all []*tracer) []*tracer {
		return slices.DeleteFunc(all, func(other *tracer) bool { return other == t })
	})
	gone := make(chan struct{})
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // nothing comes but the end
		close(gone)
	}()
	first := Event{Time: time.Now(), Event: "tracing", Worker: os.Getpid()}
	for _, p := range w.all() {
		if t.follows(p) {
			first.Ports = append(first.Ports, p.log.Port)
		}
	}
	for err = tellEvent(conn, first); err == nil; {
		select {
		case <-gone:
			return
		case h := <-t.events:
			if n := t.dropped.Swap(0); n > 0 {
				err = tellEvent(conn, Event{Time: h.at, Event: "dropped", Dropped: n})
			}
			if err == nil {
				err = tellEvent(conn, h.event())
			}
		}
	}
}

// changeTracers exchanges those who are told.
func (w *Worker) changeTracers(change func([]*tracer) []*tracer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*tracer
	if now := w.tracers.Load(); now != nil {
		all = slices.Clone(*now)
	}
	if all = change(all); len(all) > 0 {
		w.tracers.Store(&all)
	} else {
		w.tracers.Store(nil)
	}
}

// tellEvent sends an event, which is a message. It waits for a peer that does not read.
func tellEvent(conn *net.UnixConn, e Event) error {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	return err
}

func (h happening) event() Event {
	c := h.connection
	e := Event{Time: h.at, Port: h.port.log.Port, Backend: c.Backend.String()}
	if c.Client.IsValid() {
		e.Client = c.Client.String()
	}
	if h.operation != "" {
		e.Event, e.Operation, e.Error = "failed", h.operation, h.err.Error()
		return e
	}
	e.ConnectSeconds = c.Dial.Seconds()
	switch c.Phase {
	case connection.Accepted:
		e.Event = "accepted"
	case connection.Connected:
		e.Event = "connected"
	case connection.Ended:
		e.Event, e.EndedBy, e.Reason = "ended", string(c.By), string(c.Reason)
		e.DurationSeconds, e.ReceivedBytes, e.SentBytes = c.Lasted.Seconds(), c.FromClient, c.FromBackend
		if c.Err != nil {
			e.Error = c.Err.Error()
		}
	}
	return e
}
