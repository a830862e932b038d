package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/portsplice/portsplice/bench/internal/stats"
)

// Result is what all rounds of a work gave.
type Result struct {
	Work    Work
	Proxies []Proxy
	Samples []Sample
}

// kept gives the values of a proxy in a unit, by round, without the first.
func (r Result) kept(proxy, unit string) []float64 {
	var values []float64
	for _, s := range r.Samples {
		if v, measured := s.Values[unit]; measured && s.Proxy == proxy && s.Round > 0 {
			values = append(values, v)
		}
	}
	return values
}

// Figure is what the rounds of one proxy gave in one unit.
type Figure struct {
	Median, Min, Max float64
	Comparison            // with the reference that it fares worse against
	Reference        bool // it is that itself
}

// Comparison is one proxy by another.
type Comparison struct {
	Ratio float64 // NaN without another
	Alike bool    // within the noise
	Worse bool    // in what two digits after the point show, and not alike
}

func (c Comparison) String() string {
	switch {
	case math.IsNaN(c.Ratio):
		return ""
	case c.Alike:
		return "~"
	}
	return fmt.Sprintf("%.2f", c.Ratio)
}

// Figure gives the figure of a proxy in a unit, if there is one.
func (r Result) Figure(proxy string, unit Unit) (f Figure, measured bool) {
	values := r.kept(proxy, unit.Name)
	if len(values) == 0 {
		return f, false
	}
	f = Figure{Median: stats.Median(values), Min: slices.Min(values), Max: slices.Max(values)}
	base := r.base(proxy)
	_, f.Comparison = r.against(proxy, unit, func(p Proxy) bool { // never better than itself
		return base == "" && p.Reference || base != "" && p.Name == base
	})
	f.Reference = f.Ratio == 1 && slices.ContainsFunc(r.Proxies, func(p Proxy) bool { return p.Reference && p.Name == proxy })
	return f, true
}

// base is the row that a proxy is compared with, if it is not the references.
func (r Result) base(proxy string) string {
	for _, p := range r.Proxies {
		if p.Name == proxy {
			return p.Base
		}
	}
	return ""
}

// against names the proxy that one fares worst against in a unit, of those that may be compared with, and compares with
// it; nothing when none of them was measured.
func (r Result) against(proxy string, unit Unit, may func(Proxy) bool) (name string, c Comparison) {
	worst := math.NaN()
	for _, p := range r.Proxies {
		if q := r.quotient(proxy, p.Name, unit); may(p) && !math.IsNaN(q) && !unit.better(q, worst) {
			name, worst = p.Name, q
		}
	}
	alike := max(worst, 1/worst) <= r.Noise(unit) // of what was not measured (NaN) it is false
	return name, Comparison{worst, alike, !alike && unit.better(1, math.Round(100*worst)/100)}
}

// BestPeer is the peer that a proxy fares worst against in the unit that counts most.
func (r Result) BestPeer(proxy string) (name string, c Comparison) {
	return r.against(proxy, r.Work.Units[0], func(p Proxy) bool { return p.Peer })
}

// quotient is the median of what each round gives, one proxy by another; NaN when one of them was not measured.
func (r Result) quotient(a, b string, unit Unit) float64 {
	return stats.Ratio(r.kept(a, unit.Name), r.kept(b, unit.Name))
}

// Noise is how far a ratio may be from 1 by chance, by two rows of the same program; NaN if there are no two.
func (r Result) Noise(unit Unit) float64 {
	for _, p := range r.Proxies {
		if n := stats.Noise(r.kept(p.Name, unit.Name), r.kept(p.Again, unit.Name)); p.Again != "" && !math.IsNaN(n) {
			return n
		}
	}
	return math.NaN()
}

// DirectMoved is how much direct moved between rounds, in the unit that counts most.
func (r Result) DirectMoved() float64 { return stats.Spread(r.kept(Direct, r.Work.Units[0].Name)) }

// NoiseLimit is how much direct may move before a result calls itself noisy.
const NoiseLimit = 0.15

// Headroom is how much faster direct is than the fastest proxy; NaN if speed is not what counts. When it is little the
// client and the server bound the work.
func (r Result) Headroom() float64 {
	if !r.Work.Units[0].More {
		return math.NaN()
	}
	_, c := r.against(Direct, r.Work.Units[0], func(p Proxy) bool { return p.Name != Direct })
	return c.Ratio
}

// EnoughHeadroom is the Headroom below which a result says that the ends bound it.
const EnoughHeadroom = 1.3

// Rounds is how many of them count.
func (r Result) Rounds() (n int) {
	for _, s := range r.Samples {
		n = max(n, s.Round)
	}
	return n
}

// better tells whether a is; of what was not measured (NaN) neither is.
func (u Unit) better(a, b float64) bool {
	if u.More {
		return a > b
	}
	return a < b
}

// Units are those that some proxy was measured in.
func (r Result) Units() []Unit {
	return slices.DeleteFunc(slices.Clone(r.Work.Units), func(u Unit) bool {
		return !slices.ContainsFunc(r.Proxies, func(p Proxy) bool { return len(r.kept(p.Name, u.Name)) > 0 })
	})
}

// Absence says why a proxy has no figures, if it has none.
func (r Result) Absence(p Proxy) string {
	if why := p.Absence(r.Work); why != "" {
		return why
	}
	for _, s := range r.Samples {
		if s.Proxy == p.Name && s.Failed != "" {
			return "failed"
		}
	}
	return ""
}

// Failures lists what failed, and why.
func (r Result) Failures() []string {
	var failures []string
	for _, s := range r.Samples {
		if s.Failed != "" {
			failures = append(failures, fmt.Sprintf("%s, proxy %s, round %d: %s", s.Work, s.Proxy, s.Round, s.Failed))
		}
	}
	return failures
}

// Missing lists what could not be measured because it is not installed.
func (r Result) Missing() []string {
	var missing []string
	for _, p := range r.Proxies {
		if why := p.Absence(r.Work); r.Work.Fits(p) && why != "" && p.Cannot[r.Work.Name] == "" {
			missing = append(missing, fmt.Sprintf("%s, proxy %s: %s", r.Work.Name, p.Name, why))
		}
	}
	return missing
}
