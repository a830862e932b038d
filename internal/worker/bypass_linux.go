package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/portsplice/portsplice/internal/bypass"
	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/listener"
)

// bypassed is the worker's table of ports that local clients reach without it. There is none until a port asks for one.
type bypassed struct {
	mu    sync.Mutex
	table *bypass.Table
	err   error // why there is none
	said  sync.Once

	ends  int // how many tables have ended by themselves, since
	since time.Time
}

// table gives the table. What it needs and the host lacks does not come while a process lives, and is not asked for
// again; memory and descriptors may.
func (w *Worker) table() (*bypass.Table, error) {
	b := &w.bypass
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.table != nil && b.table.Ended() {
		b.table = nil
	}
	if b.table == nil && !errors.Is(b.err, errors.ErrUnsupported) && !errors.Is(b.err, os.ErrPermission) {
		if b.table, b.err = bypass.Start(w.version); b.err == nil {
			go w.keepBypassing(b.table)
		}
	}
	return b.table, b.err
}

var errBypassEnded = errors.New(bypass.Program + " has ended")

// keepBypassing puts the ports of a table that has ended into another, unless that happens time and again, as with shims
// and workers.
func (w *Worker) keepBypassing(t *bypass.Table) {
	const often, within = 3, 10 * time.Second
	t.Wait()
	w.bypass.mu.Lock()
	if now := time.Now(); now.Sub(w.bypass.since) > within {
		w.bypass.since, w.bypass.ends = now, 0
	}
	w.bypass.ends++
	again := w.bypass.ends < often
	w.bypass.mu.Unlock()
	for _, p := range w.all() {
		p.lostBypass(t, again)
	}
}

// portBypass is the port's part of it.
type portBypass struct {
	mu    sync.Mutex
	state string       // off, on, or why it cannot be
	port  *bypass.Port // nil unless it is on
	gone  uint64       // how many connections were bypassed by what port was before
	ended bool         // the published port has
}

// errAccessLog: connections that nobody relays are in no log.
var errAccessLog = errors.New("-access-log is on, and would not have the connections that go without the proxy")

// startBypass puts the port into the table, if it is to be there. An error says why a port that requires it is not to be
// served. One that a worker before this has served is: dockerd would not hear of its end.
func (p *port) startBypass() error {
	ofHost, err := p.changeBypass(p.config)
	how := p.config.LocalBypass
	switch {
	case err == nil:
		return nil
	case how == config.BypassRequire && !p.config.Resumed:
		return required(err)
	}
	say := func() { p.config.Warnings = append(p.config.Warnings, notHere(how, err)) }
	if ofHost && how == config.BypassAuto {
		p.worker.bypass.said.Do(say)
	} else {
		say()
	}
	return nil
}

func required(err error) error { return fmt.Errorf("-local-bypass require: %w", err) }

func notHere(how config.Bypass, err error) string {
	return fmt.Sprintf("-local-bypass %s: not here: %v", how, err)
}

// setBypass has the port be in the table, or not any more, as other options say than it has now. Connections live on. An
// error says why a port that is to require it cannot; then it is as it was.
func (p *port) setBypass(now, next config.Config) error {
	must := next.LocalBypass == config.BypassRequire
	switch {
	case now.LocalBypass == next.LocalBypass && now.AccessLog == next.AccessLog:
		return nil
	case must && next.AccessLog == config.On: // before it is taken out
		return required(errAccessLog)
	}
	_, err := p.changeBypass(next)
	switch {
	case err != nil && must: // it was not there before
		_, _ = p.changeBypass(now)
		return required(err)
	case err != nil:
		go slog.New(p.log).Warn(notHere(next.LocalBypass, err))
	}
	return nil
}

// changeBypass puts the port into the table or takes it out. The error says why it is not there though it should be, and
// ofHost whether that is so for every port.
func (p *port) changeBypass(c config.Config) (ofHost bool, err error) {
	b := &p.bypass
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return false, nil
	case c.Protocol != listener.TCP || c.LocalBypass == config.BypassOff:
		p.leaveBypass()
		b.state = string(config.BypassOff)
		return false, nil
	case c.AccessLog == config.On:
		p.leaveBypass()
		err = errAccessLog
	case b.port == nil:
		var table *bypass.Table
		if table, err = p.worker.table(); err != nil {
			ofHost = true
		} else {
			b.port, err = table.Add(c.Frontend, c.Backend)
		}
	}
	b.state = "on"
	if err != nil {
		b.state = err.Error()
	}
	return ofHost, err
}

// leaveBypass takes the port out of the table, if it is there; p.bypass.mu is held.
func (p *port) leaveBypass() {
	b := &p.bypass
	if b.port == nil {
		return
	}
	if err := b.port.Remove(); err != nil {
		slog.New(p.log).Error("-local-bypass: " + err.Error())
	}
	b.gone += b.port.Bypassed()
	b.port = nil
}

// lostBypass puts the port into another table, if it was in that one.
func (p *port) lostBypass(t *bypass.Table, again bool) {
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	if p.bypass.ended || p.bypass.port == nil || p.bypass.port.Table() != t {
		return
	}
	p.bypass.gone += p.bypass.port.Bypassed()
	p.bypass.port = nil
	err := errBypassEnded
	if again {
		var table *bypass.Table
		if table, err = p.worker.table(); err == nil {
			p.bypass.port, err = table.Add(p.config.Frontend, p.config.Backend)
		}
	}
	if err != nil {
		p.bypass.state = err.Error()
		go slog.New(p.log).Error("-local-bypass: not any more: " + err.Error())
	}
}

// bypassed counts the connections, if there are to be any or there were.
func (p *port) bypassed() (n uint64, is bool) {
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	n = p.bypass.gone
	if p.bypass.port != nil {
		n += p.bypass.port.Bypassed()
	}
	return n, n > 0 || p.bypass.port != nil
}

// bypassState is what List tells.
func (p *port) bypassState() string {
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	if p.bypass.port != nil && p.bypass.port.Table().Ended() {
		return errBypassEnded.Error()
	}
	return p.bypass.state
}

// endBypass takes the port out of the table, if it is there, for good.
func (p *port) endBypass() {
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	p.bypass.ended = true
	p.leaveBypass()
}
