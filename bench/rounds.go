package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// Proxy is a program that relays, or none: "direct".
type Proxy struct {
	Name      string   `json:"name"`
	Path      string   `json:"path,omitempty"` // of the program; none for direct, and for what is not installed
	Version   string   `json:"version,omitempty"`
	Arguments []string `json:"arguments,omitempty"` // after dockerd's
	Protocols []string `json:"protocols"`           // that it relays
	Reference bool     `json:"reference,omitempty"` // what the others are compared with
	Peer      bool     `json:"peer,omitempty"`      // what users pick instead: dockerd cannot start it
	Again     string   `json:"again,omitempty"`     // name of the row that has the same program
	Shim      bool     `json:"shim,omitempty"`      // a worker, which is not its child, moves the bytes
	Bypass    bool     `json:"bypass,omitempty"`    // local clients reach the container without a hop
	Headers   bool     `json:"headers,omitempty"`   // the server is told of each client by a PROXY header
	Base      string   `json:"base,omitempty"`      // name of the row that it is compared with, in place of the references

	Environment []string          `json:"environment,omitempty"` // beyond the benchmark's own
	Cannot      map[string]string `json:"cannot,omitempty"`      // why it is not tried, by the name of a work

	descriptors float64 // that a connection takes, where it is more than two
	manyPorts   bool    // in one process
	adopts      bool    // the listening socket, by -use-listen-fd
	peer        peer    // how it is started, if it is one
}

// peer is what dockerd cannot start.
type peer struct {
	command
	inherits bool              // the listening socket, as systemd hands it over
	options  map[string]string // of its listener, by protocol
}

// command is a program from a distribution's packages. In its arguments and its configuration stand {ip} and {port} for
// where it listens, {backend} for where a proxy connects to, {protocol}, {options}, {config}, which is the path of the
// configuration file, and {dir}, which is for all others.
type command struct {
	programs  []string // names, or patterns of paths of what is not for users to start
	arguments string
	config    string
}

// socketsAndPipes is how many descriptors a connection takes whose two directions have a pipe each.
const socketsAndPipes = 6

// Direct is no proxy.
const Direct = "direct"

// Ours tells whether the proxy is an engine of this project.
func (p Proxy) Ours() bool { return p.Name != Direct && !p.Reference && !p.Peer }

// Absence says why a proxy is not measured at a work, or nothing.
func (p Proxy) Absence(w Work) string {
	if w.Missing != "" {
		return w.Missing
	}
	if p.Path == "" && p.Name != Direct {
		return "not installed"
	}
	return p.Cannot[w.Name]
}

// confine notes what the proxy cannot do: to serve many ports, or to have more idle connections than the limit of
// descriptors allows.
func (p *Proxy) confine(works []Work, limit uint64) {
	cannot := map[string]string{}
	maps.Copy(cannot, p.Cannot) // it may be a constant
	for _, w := range works {
		if !p.manyPorts && (w.ports > mostProcesses && !p.Shim || w.ports > 1 && p.Peer) {
			cannot[w.Name] = "has a process for each port"
		}
		if needed := p.descriptors * float64(w.count); w.Kind == idle && w.Protocol == tcp && needed > float64(limit) {
			cannot[w.Name] = fmt.Sprintf("needs %.0f descriptors of %d", needed, limit)
		}
	}
	p.Cannot = cannot
}

// Sample is one measurement.
type Sample struct {
	Work   string `json:"work"`
	Proxy  string `json:"proxy"`
	Round  int    `json:"round"` // 0: dropped
	Values Values `json:"values,omitempty"`
	Failed string `json:"failed,omitempty"` // why there are no values
}

// Rounds measures the proxies in turn, as often as the set says and once before. Rounds go through them in both directions
// alternately, so that none always follows the same one. The round that comes before is number 0: it is short and for the
// machine to get used to the work, and tables leave it out. What takes many seconds, or is about memory, which needs no
// getting used to, has two rounds at the most, and none before. A proxy that fails once is left out of further rounds:
// most failures take as long as there is patience for.
func Rounds(ctx context.Context, set Set, work Work, proxies []Proxy,
	measure func(context.Context, Work, Proxy, time.Duration) (Values, error)) Result {
	const shortest = 300 * time.Millisecond // of the first round: a peer under load may be silent for half of it
	r := Result{Work: work, Proxies: proxies}
	round, last := 0, set.Rounds
	if work.Time != 0 || work.Kind == idle {
		round, last = 1, min(last, 2)
	}
	for ; round <= last; round++ {
		d := set.Time
		if round == 0 {
			d = max(d/4, shortest)
		}
		for _, p := range inRound(proxies, round) {
			if !work.Fits(p) || r.Absence(p) != "" {
				continue
			}
			values, err := measure(ctx, work, p, d)
			failure.Check(ctx.Err())
			s := Sample{Work: work.Name, Proxy: p.Name, Round: round, Values: values}
			if err != nil {
				s.Failed = err.Error()
			}
			r.Samples = append(r.Samples, s)
		}
	}
	return r
}

// inRound is the order of the proxies in a round: forward in even rounds, backward in odd ones. Rounds 1 and 2 are each other
// backward, and so are those that follow, each two of which begin with another proxy.
func inRound(proxies []Proxy, round int) []Proxy {
	first := (round + 1) / 2 % len(proxies)
	order := slices.Concat(proxies[first:], proxies[:first])
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}
