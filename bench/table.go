package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// String is the table of one work as text.
func (r Result) String() string {
	var b strings.Builder
	b.WriteString("\n" + r.Work.Name + "   " + strings.Join(r.circumstances(), "   ") + "\n")
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range r.rows(nil) {
		_, _ = fmt.Fprintf(table, "  %s\t\n", strings.Join(row, "\t")) // a strings.Builder takes everything
	}
	_ = table.Flush()
	return b.String()
}

// markdown is the same for a page, with what ours loses in bold.
func (r Result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", r.Work.Name, strings.Join(r.circumstances(), "; "))
	for i, row := range r.rows(func(text string) string { return "**" + text + "**" }) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}

// circumstances are what a reader should know before the figures.
func (r Result) circumstances() []string {
	said := []string{fmt.Sprintf("%d rounds", r.Rounds())}
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
	if h := r.Headroom(); h < EnoughHeadroom {
		said = append(said, fmt.Sprintf("BOUND BY THE ENDS: direct makes %.2f of the best proxy", h))
	}
	return said
}

// rows are the names of the units, then a row for each proxy: median, extremes, and the ratio to the reference.
func (r Result) rows(emphasize func(string) string) [][]string {
	units := r.Units()
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
		for i, u := range units {
			f, measured := r.Figure(p.Name, u)
			if !measured {
				row[1+i] = "-"
				continue
			}
			row[1+i] = f.String()
			if f.Worse && p.Ours() && emphasize != nil {
				row[1+i] = emphasize(row[1+i])
			}
		}
		if why := r.Absence(p); why != "" {
			row = slices.Concat([]string{p.Name, why}, make([]string, max(0, len(units)-1)))
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

// short prints three or four digits, which is more than the measurements are good for.
func short(v float64) string {
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
