package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/bench/internal/usage"
)

// Result is what all rounds of a work gave.
type Result struct {
	Work    Work
	Proxies []Proxy
	Samples []Sample
}

// NoiseLimit is the Noise above which a result calls itself noisy.
const NoiseLimit = 0.15

// Noise is how much direct moved between rounds, in the unit that counts most.
func (r Result) Noise() float64 { return stats.Spread(r.kept(Direct, r.Work.Units[0].Name)) }

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

// ratio is to the reference that leaves the worse one, as the median of the rounds has it; NaN when there is none. That of
// a reference is never better than 1.
func (r Result) ratio(proxy string, unit Unit) float64 {
	worst := math.NaN()
	for _, p := range r.Proxies {
		if q := r.quotient(proxy, p.Name, unit); p.Reference && (math.IsNaN(worst) || unit.better(worst, q)) {
			worst = q
		}
	}
	return worst
}

// quotient is the median of what each round gives, one proxy by another; NaN when one of them was not measured.
func (r Result) quotient(a, b string, unit Unit) float64 {
	return stats.Ratio(r.kept(a, unit.Name), r.kept(b, unit.Name))
}

// BestPeer names the peer that a proxy fares worst against in the unit that counts most, and gives the proxy's ratio to
// it; nothing when no peer was measured.
func (r Result) BestPeer(proxy string) (name string, f Figure) {
	unit := r.Work.Units[0]
	f.Ratio = math.NaN()
	for _, p := range r.Proxies {
		if q := r.quotient(proxy, p.Name, unit); p.Peer && !math.IsNaN(q) && !unit.better(q, f.Ratio) {
			name, f = p.Name, Figure{Ratio: q, Worse: unit.worse(q)}
		}
	}
	return name, f
}

// Headroom is how much faster direct is than the fastest proxy; NaN if speed is not what counts. When it is little the
// client and the server bound the work.
func (r Result) Headroom() float64 {
	unit := r.Work.Units[0]
	least := math.NaN()
	for _, p := range r.Proxies {
		if q := r.quotient(Direct, p.Name, unit); unit.More && p.Name != Direct && !math.IsNaN(q) && !(q >= least) {
			least = q
		}
	}
	return least
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

// worse tells whether a ratio is, in what two digits after the point show.
func (u Unit) worse(ratio float64) bool { return u.better(1, math.Round(100*ratio)/100) }

// String is the table of one work: a row for each proxy and, for each unit, the median, the extremes and the ratio to
// the reference.
func (r Result) String() string {
	var b strings.Builder
	b.WriteString("\n" + r.Work.Name + r.circumstances() + "\n")
	table := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	_, _ = table.Write([]byte(r.cells())) // a strings.Builder takes everything
	_ = table.Flush()
	return b.String()
}

// circumstances is what a reader should know before the figures.
func (r Result) circumstances() string {
	var b strings.Builder
	var foreign []float64
	for _, p := range r.Proxies {
		foreign = append(foreign, r.kept(p.Name, usage.Others)...)
	}
	if n := r.Rounds(); n > 0 {
		fmt.Fprintf(&b, "   %d rounds", n)
	}
	if len(foreign) > 0 {
		fmt.Fprintf(&b, "   others took %.0f%%..%.0f%% of the CPUs", slices.Min(foreign), slices.Max(foreign))
	}
	if n := r.Noise(); n > NoiseLimit {
		fmt.Fprintf(&b, "   NOISY: direct moved by %.0f%%", 100*n)
	}
	if h := r.Headroom(); h < EnoughHeadroom {
		fmt.Fprintf(&b, "   BOUND BY THE ENDS: direct makes %.2f of the best proxy", h)
	}
	return b.String()
}

// Units are those that some proxy was measured in.
func (r Result) Units() []Unit {
	return slices.DeleteFunc(slices.Clone(r.Work.Units), func(u Unit) bool {
		return !slices.ContainsFunc(r.Proxies, func(p Proxy) bool { return len(r.kept(p.Name, u.Name)) > 0 })
	})
}

// cells is the table with tabs.
func (r Result) cells() string {
	units := r.Units()
	var b strings.Builder
	b.WriteString("  proxy\t")
	for _, u := range units {
		fmt.Fprintf(&b, "  %s %s\tmin..max\tratio\t", u.Name, map[bool]string{true: "↑", false: "↓"}[u.More])
	}
	b.WriteString("\n")
	for _, p := range r.Proxies {
		if !r.Work.Fits(p) {
			continue
		}
		b.WriteString("  " + p.Name + "\t")
		if why := r.Absence(p); why != "" {
			b.WriteString("  " + why + "\n")
			continue
		}
		for _, u := range units {
			b.WriteString(r.cell(p.Name, u))
		}
		b.WriteString("\n")
	}
	return b.String()
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

func (r Result) cell(proxy string, unit Unit) string {
	f, measured := r.Figure(proxy, unit)
	if !measured {
		return "  -\t\t\t"
	}
	ratio := "-"
	if f.Ratio == 1 && r.isReference(proxy) {
		ratio = "ref"
	} else if !math.IsNaN(f.Ratio) {
		ratio = fmt.Sprintf("%.2fx", f.Ratio)
	}
	return fmt.Sprintf("  %s\t%s..%s\t%s\t", Short(f.Median), Short(f.Min), Short(f.Max), ratio)
}

// Figure is what the rounds of one proxy gave in one unit.
type Figure struct {
	Median, Min, Max float64
	Ratio            float64 // to the reference that it fares worse against; NaN without one
	Worse            bool    // than the reference, in what two digits after the point show
}

// Figure gives the figure of a proxy in a unit, if there is one.
func (r Result) Figure(proxy string, unit Unit) (f Figure, measured bool) {
	values := r.kept(proxy, unit.Name)
	if len(values) == 0 {
		return f, false
	}
	q := r.ratio(proxy, unit)
	return Figure{
		Median: stats.Median(values), Min: slices.Min(values), Max: slices.Max(values), Ratio: q, Worse: unit.worse(q),
	}, true
}

func (r Result) isReference(proxy string) bool {
	return slices.ContainsFunc(r.Proxies, func(p Proxy) bool { return p.Reference && p.Name == proxy })
}

// Short prints three or four digits, which is more than the measurements are good for.
func Short(v float64) string {
	switch size := math.Abs(v); {
	case size >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case size >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	case size >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
