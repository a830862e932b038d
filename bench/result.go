package main

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

// byRound gives the values of a proxy in a unit, by round, without the first; NaN where a round has none.
func (r Result) byRound(proxy, unit string) []float64 {
	var values []float64
	for _, s := range r.Samples {
		if v, measured := s.Values[unit]; measured && s.Proxy == proxy && s.Round > 0 {
			for len(values) < s.Round-1 {
				values = append(values, math.NaN())
			}
			values = append(values, v)
		}
	}
	return values
}

// kept gives the values that there are.
func (r Result) kept(proxy, unit string) []float64 {
	return slices.DeleteFunc(r.byRound(proxy, unit), math.IsNaN)
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

// Figure gives the figure of a proxy in a unit, if there is one.
func (r Result) Figure(proxy string, unit Unit) (f Figure, measured bool) {
	values := r.kept(proxy, unit.Name)
	i := slices.IndexFunc(r.Proxies, func(p Proxy) bool { return p.Name == proxy })
	if len(values) == 0 || i < 0 {
		return f, false
	}
	base := r.Proxies[i].Base
	_, c := r.against(proxy, unit, func(p Proxy) bool { // never better than itself
		return p.Name == base || base == "" && p.Reference
	})
	return Figure{stats.Median(values), slices.Min(values), slices.Max(values), c, c.Ratio == 1 && r.Proxies[i].Reference}, true
}

// against names the proxy that one fares worst against in a unit, of those that may be compared with, and compares with
// it; nothing when none of them was measured.
func (r Result) against(proxy string, unit Unit, may func(Proxy) bool) (name string, c Comparison) {
	worst := math.NaN()
	for _, p := range r.Proxies {
		q := stats.Ratio(r.byRound(proxy, unit.Name), r.byRound(p.Name, unit.Name)) // NaN when one of them was not measured
		if may(p) && !math.IsNaN(q) && !unit.better(q, worst) {
			name, worst = p.Name, q
		}
	}
	alike := max(worst, 1/worst) <= r.Noise(unit) // of what was not measured (NaN) it is false
	return name, Comparison{worst, alike, !alike && unit.better(1, math.Round(100*worst)/100)}
}

// better tells whether a is; of what was not measured (NaN) neither is.
func (u Unit) better(a, b float64) bool { return u.More && a > b || !u.More && a < b }

// Noise is how far a ratio may be from 1 by chance, by two rows of the same program; NaN if there are no two.
func (r Result) Noise(unit Unit) float64 {
	for _, p := range r.Proxies {
		if n := stats.Noise(r.byRound(p.Name, unit.Name), r.byRound(p.Again, unit.Name)); p.Again != "" && !math.IsNaN(n) {
			return n
		}
	}
	return math.NaN()
}

// DirectMoved is how much direct moved between rounds, in the unit that counts most.
func (r Result) DirectMoved() float64 { return stats.Spread(r.kept(Direct, r.Work.Units[0].Name)) }

// NoiseLimit is how much direct may move before a result calls itself noisy.
const NoiseLimit = 0.15

// Absence says why a proxy has no figures, if it has none.
func (r Result) Absence(p Proxy) string {
	why := p.Absence(r.Work)
	if why == "" && slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Proxy == p.Name && s.Failed != "" }) {
		return "failed"
	}
	return why
}

// Failures lists what failed, and why.
func (r Result) Failures() (failures []string) {
	for _, s := range r.Samples {
		if s.Failed != "" {
			failures = append(failures, fmt.Sprintf("%s, proxy %s, round %d: %s", s.Work, s.Proxy, s.Round, s.Failed))
		}
	}
	return failures
}

// Missing lists what could not be measured because it is not installed.
func (r Result) Missing() (missing []string) {
	for _, p := range r.Proxies {
		if why := p.Absence(r.Work); r.Work.Fits(p) && why != "" && p.Cannot[r.Work.Name] == "" {
			missing = append(missing, fmt.Sprintf("%s, proxy %s: %s", r.Work.Name, p.Name, why))
		}
	}
	return missing
}

// String is the table of one work in Markdown: for each proxy median, extremes, and the ratio to the reference.
func (r Result) String() string {
	return fmt.Sprintf("\n## %s\n\n%s.\n\n%s", r.Work.Name, strings.Join(r.circumstances(), "; "), table(r.rows()))
}

// table is one in Markdown whose columns are straight, so that it is read as it is.
func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	ruler := slices.Repeat([]string{"---"}, len(rows[0]))
	for _, row := range slices.Insert(slices.Clone(rows), 1, ruler) {
		_, _ = fmt.Fprintf(w, "| %s\t|\n", strings.Join(row, "\t| ")) // a strings.Builder takes everything
	}
	_ = w.Flush()
	return b.String()
}

// circumstances are what a reader should know before the figures.
func (r Result) circumstances() []string {
	rounds := 0 // that count
	for _, s := range r.Samples {
		rounds = max(rounds, s.Round)
	}
	said := []string{fmt.Sprintf("%d rounds", rounds)}
	if n := r.Noise(r.Work.Units[0]); !math.IsNaN(n) {
		said = append(said, fmt.Sprintf("noise %.0f%%", 100*(n-1)))
	}
	var foreign []float64
	for _, p := range r.Proxies {
		foreign = append(foreign, r.kept(p.Name, usage.Others)...)
	}
	if len(foreign) > 0 {
		said = append(said, fmt.Sprintf("others took %.0f%%..%.0f%% of the CPUs", slices.Min(foreign), slices.Max(foreign)))
	}
	if n := r.DirectMoved(); n > NoiseLimit {
		said = append(said, fmt.Sprintf("NOISY: direct moved by %.0f%%", 100*n))
	}
	most := r.Work.Units[0] // where it is speed, client and server bound the work when direct is little faster than all others
	if _, c := r.against(Direct, most, func(p Proxy) bool { return p.Name != Direct }); most.More && c.Ratio < 1.3 {
		said = append(said, fmt.Sprintf("BOUND BY THE ENDS: direct makes %.2f of the best proxy", c.Ratio))
	}
	return said
}

// rows are the names of the units, then a row for each proxy. What ours loses is in bold.
func (r Result) rows() [][]string {
	units := slices.DeleteFunc(slices.Clone(r.Work.Units), func(u Unit) bool { // that no proxy was measured in
		return !slices.ContainsFunc(r.Proxies, func(p Proxy) bool { return len(r.kept(p.Name, u.Name)) > 0 })
	})
	head := []string{"proxy"}
	for _, u := range units {
		head = append(head, u.Name+map[bool]string{true: " ↑", false: " ↓"}[u.More])
	}
	rows := [][]string{head}
	for _, p := range r.Proxies {
		if !r.Work.Fits(p) {
			continue
		}
		row := make([]string, 1+len(units))
		row[0] = p.Name
		if why := r.Absence(p); why != "" {
			rows = append(rows, slices.Concat([]string{p.Name, why}, make([]string, max(0, len(units)-1))))
			continue
		}
		for i, u := range units {
			row[1+i] = "-"
			if f, measured := r.Figure(p.Name, u); measured {
				row[1+i] = f.String()
				if p.Ours() {
					row[1+i] = f.bold(f.String())
				}
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (f Figure) String() string {
	text := fmt.Sprintf("%s [%s..%s]", short(f.Median), short(f.Min), short(f.Max))
	switch c := f.Comparison.String(); {
	case f.Reference:
		return text + " ref"
	case c == "" || f.Alike:
		return strings.TrimSpace(text + " " + c)
	default:
		return text + " " + c + "x"
	}
}

// bold is text in bold where we lose.
func (c Comparison) bold(text string) string {
	if c.Worse {
		return "**" + text + "**"
	}
	return text
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

// short prints three or four digits, which is more than the measurements are good for.
func short(v float64) string {
	for _, s := range []struct {
		from, unit float64
		format     string
	}{{1e6, 1e6, "%.2fM"}, {1e4, 1e3, "%.1fk"}, {100, 1, "%.0f"}, {10, 1, "%.1f"}, {1, 1, "%.2f"}} {
		if math.Abs(v) >= s.from {
			return fmt.Sprintf(s.format, v/s.unit)
		}
	}
	return fmt.Sprintf("%.3f", v)
}
