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
		e.Head(r.Proxies), strings.TrimPrefix(e.Foot(r.Rounds), "\n"))
	fmt.Fprintf(&b, "Medians of %d rounds of %s that alternate between the proxies, [from least to most]. Behind them the "+
		"ratio to the\nreference: docker-proxy or goref, its algorithm built with this Go, whichever leaves the worse one. "+
		"**Bold**: one of ours is worse.\n[Package bench](../../doc.go) says what is measured and where. Raw output: "+
		"[tables](ratios.txt), [JSON](results.json), and\n[for benchstat](raw.txt): "+
		"`benchstat -col '/proxy@(docker-proxy splice)' raw.txt`.\n\n", r.Rounds, r.Time)
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
	fmt.Fprintf(&b, "Rounds: %d.", r.Rounds())
	if noise := r.Noise(); noise > bench.NoiseLimit {
		fmt.Fprintf(&b, " Noisy: direct moved by %.0f%% between them.", 100*noise)
	}
	if h := r.Headroom(); h < bench.EnoughHeadroom {
		fmt.Fprintf(&b, " Bound by client and server: direct makes %.2f of the best proxy.", h)
	}
	b.WriteString("\n\n")
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
