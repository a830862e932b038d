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
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	p.bypass.state = string(config.BypassOff)
	how := p.config.LocalBypass
	if p.config.Protocol != listener.TCP || how == config.BypassOff {
		return nil
	}
	var table *bypass.Table
	err, ofHost := errAccessLog, false
	if p.access == nil {
		table, err = p.worker.table()
		ofHost = err != nil
	}
	if err == nil {
		p.bypass.port, err = table.Add(p.config.Frontend, p.config.Backend)
	}
	switch {
	case err == nil:
		p.bypass.state = "on"
		return nil
	case how == config.BypassRequire && !p.config.Resumed:
		return fmt.Errorf("-local-bypass require: %w", err)
	}
	p.bypass.state = err.Error()
	say := func() {
		p.config.Warnings = append(p.config.Warnings, fmt.Sprintf("-local-bypass %s: not here: %v", how, err))
	}
	if ofHost && how == config.BypassAuto {
		p.worker.bypass.said.Do(say)
	} else {
		say()
	}
	return nil
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

func (p *port) bypassed() uint64 {
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	if p.bypass.port == nil {
		return p.bypass.gone
	}
	return p.bypass.gone + p.bypass.port.Bypassed()
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

// endBypass takes the port out of the table, if it is there.
func (p *port) endBypass() {
	p.bypass.mu.Lock()
	defer p.bypass.mu.Unlock()
	p.bypass.ended = true
	if p.bypass.port == nil {
		return
	}
	if err := p.bypass.port.Remove(); err != nil {
		slog.New(p.log).Error("-local-bypass: " + err.Error())
	}
}
