package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/portsplice/portsplice/bench"
)

// page is the report of a run: where it was measured, the plots, and a table for each work.
func page(r bench.Report, plots []plotFile) string {
	var b strings.Builder
	e := r.Environment
	fmt.Fprintf(&b, "# Measured on %s, %s\n\n```\n%s%s```\n\n", e.Date.Format("2006-01-02"), e.Kernel,
		e.Head(r.Proxies), strings.TrimPrefix(e.Foot(), "\n"))
	fmt.Fprintf(&b, "Medians of %d rounds of %s that alternate between the proxies, [from least to most]. Behind them the "+
		"ratio to the\nreference: docker-proxy or goref, its algorithm built with this Go, whichever did better. **Bold**: "+
		"one of ours is worse.\n[Package bench](../../doc.go) says what is measured and where. "+
		"Raw output: [tables](ratios.txt), [for benchstat](raw.txt), [JSON](results.json).\n\n", r.Rounds, r.Time)
	for _, p := range plots {
		fmt.Fprintf(&b, "![%s](%s)\n", p.title, p.name)
	}
	for _, result := range r.Results() {
		b.WriteString(table(result))
	}
	return b.String()
}

// table is one work: a row for each proxy, a column for each unit.
func table(r bench.Result) string {
	var b strings.Builder
	units := r.Units()
	fmt.Fprintf(&b, "\n## %s\n\n", r.Work.Name)
	if noise := r.Noise(); noise > bench.NoiseLimit {
		fmt.Fprintf(&b, "Noisy: direct moved by %.0f%% between rounds.\n\n", 100*noise)
	}
	b.WriteString("| proxy |")
	for _, u := range units {
		b.WriteString(" " + u.Name + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", 1+len(units)) + "\n")
	for _, p := range r.Proxies {
		if !r.Work.Fits(p) {
			continue
		}
		b.WriteString("| " + p.Name + " |" + row(r, p, units) + "\n")
	}
	return b.String()
}

func row(r bench.Result, p bench.Proxy, units []bench.Unit) string {
	if why := r.Absence(p); why != "" {
		return " " + why + " |" + strings.Repeat(" |", max(0, len(units)-1))
	}
	var b strings.Builder
	for _, u := range units {
		b.WriteString(" " + cell(r, p, u) + " |")
	}
	return b.String()
}

func cell(r bench.Result, p bench.Proxy, u bench.Unit) string {
	f, measured := r.Figure(p.Name, u)
	if !measured {
		return ""
	}
	text := fmt.Sprintf("%s [%s..%s]", bench.Short(f.Median), bench.Short(f.Min), bench.Short(f.Max))
	if !math.IsNaN(f.Ratio) {
		text += fmt.Sprintf(" %.2fx", f.Ratio)
	}
	if f.Worse && p.Ours() {
		text = "**" + text + "**"
	}
	return text
}
