package worker

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/portsplice/portsplice/internal/bypass"
	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/journal"
	"github.com/portsplice/portsplice/internal/listener"
)

// bypassed is the worker's table of ports that local clients reach without it. There is none until a port asks for one.
type bypassed struct {
	mu    sync.Mutex
	table *bypass.Table
	err   error // why there is none
	said  sync.Once
}

// get gives the table. What it needs and the host lacks does not come while a process lives, and is not asked for
// again; memory and descriptors may.
func (b *bypassed) get() (*bypass.Table, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.table == nil && !errors.Is(b.err, errors.ErrUnsupported) && !errors.Is(b.err, os.ErrPermission) {
		b.table, b.err = bypass.Attach()
	}
	return b.table, b.err
}

// portBypass is the port's part of it.
type portBypass struct {
	state string        // off, on, or why it cannot be
	entry *bypass.Entry // nil unless it is on
}

// startBypass puts the port into the table, if it is to be there. An error says why a port that requires it cannot be.
func (p *port) startBypass() error {
	p.bypass.state = string(config.BypassOff)
	if p.config.Protocol != listener.TCP || p.config.LocalBypass == config.BypassOff {
		return nil
	}
	table, err := p.worker.bypass.get()
	ofHost := err != nil
	if err == nil {
		p.bypass.entry, err = table.Add(p.config.Frontend, p.config.Backend)
	}
	switch {
	case err == nil:
		p.bypass.state = "on"
		p.countBypassed()
		return nil
	case p.config.LocalBypass == config.BypassRequire:
		return fmt.Errorf("-local-bypass require: %w", err)
	}
	p.bypass.state = err.Error()
	say := func() {
		p.config.Warnings = append(p.config.Warnings, fmt.Sprintf("-local-bypass auto: not here: %v", err))
	}
	if ofHost {
		p.worker.bypass.said.Do(say)
	} else {
		say()
	}
	return nil
}

// countBypassed adds a counter to those of the relay.
func (p *port) countBypassed() {
	stats, entry := p.relay.Stats, p.bypass.entry
	p.relay.Stats = func() fmt.Stringer { return withBypassed{stats(), entry.Bypassed()} }
}

type withBypassed struct {
	relayed  fmt.Stringer
	bypassed uint64
}

func (w withBypassed) String() string { return fmt.Sprintf("%v bypassed=%d", w.relayed, w.bypassed) }

// endBypass takes the port out of the table, if it is there.
func (p *port) endBypass() {
	if p.bypass.entry == nil {
		return
	}
	if err := p.bypass.entry.Remove(); err != nil {
		p.log.Print(journal.Error, fmt.Sprintf("portsplice: -local-bypass: %v\n", err))
	}
}
