package main

import (
	"path"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/stats"
)

// plots are of bars: for each proxy that has the first unit one in each unit of each of the works, whose names are a pattern.
var plots = []struct{ file, title, works, units, label string }{
	{"latency.svg", "Time until the answer", "pingpong/size=64/conns=64", "p50-us p99-us", "microseconds"},
	{"cpu.svg", "CPU time of the proxy", "bulk/*/conns=8", "proxy-s/GB", "seconds"},
	{"memory.svg", "Memory of an idle connection", "idle/conns=2000", "kernel-kB/conn pss-kB/conn", "kB"},
}

// drawPlots draws what the works of a run allow, and gives the Markdown that shows it.
func drawPlots(dir string, results []Result) (shown string) {
	for _, kind := range plots {
		p := plot.New()
		p.Title.Text, p.Y.Label.Text = kind.title, kind.label
		p.Legend.Top, p.Legend.Left = true, true
		p.X.Tick.Label.Font.Size = 9 // the longest name of a proxy fits beside the next
		var names []string
		var bars []*plotter.BarChart
		for _, r := range results {
			if matched, _ := path.Match(kind.works, r.Work.Name); !matched { // no pattern is bad
				continue
			}
			for unit := range strings.FieldsSeq(kind.units) {
				if names == nil {
					names = r.measured(unit)
				}
				if len(names) > 0 {
					bars = append(bars, r.bars(p, names, unit))
				}
			}
		}
		if len(bars) == 0 {
			continue // nothing of the kind was measured
		}
		for i, b := range bars {
			b.Color, b.LineStyle.Width = plotutil.Color(i), 0
			b.Width = 1.6 * vg.Centimeter / vg.Length(len(bars))
			b.Offset = b.Width * (vg.Length(i) - vg.Length(len(bars)-1)/2)
		}
		p.NominalX(names...)
		p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4 // whole bars
		failure.Check(p.Save(29*vg.Centimeter, 12*vg.Centimeter, filepath.Join(dir, kind.file)))
		shown += "![" + kind.title + "](" + kind.file + ")\n"
	}
	return shown
}

// measured names the proxies that have a unit.
func (r Result) measured(unit string) (names []string) {
	for _, p := range r.Proxies {
		if len(r.kept(p.Name, unit)) > 0 {
			names = append(names, p.Name)
		}
	}
	return names
}

// bars adds the medians of proxies in a unit.
func (r Result) bars(p *plot.Plot, names []string, unit string) *plotter.BarChart {
	values := make(plotter.Values, len(names))
	for x, name := range names {
		if kept := r.kept(name, unit); len(kept) > 0 { // no bar where there is nothing
			values[x] = stats.Median(kept)
		}
	}
	bars := failure.Must(plotter.NewBarChart(values, 1))
	p.Add(bars)
	p.Legend.Add(r.Work.Name+", "+unit, bars)
	return bars
}
