package main

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/stats"
)

// drawPlots draws what the works of a run allow, and gives the Markdown that shows it.
func drawPlots(dir string, results []Result) (shown string) {
	for _, kind := range []struct {
		file, title, label string
		works              string // the pattern of their names
		draw               func(*plot.Plot, []Result)
	}{
		{"latency.svg", "Time until the answer", "microseconds", "pingpong/size=64/conns=64", latencies},
		{"cpu.svg", "CPU time of the proxy per GB", "seconds", "bulk/*/conns=8",
			func(p *plot.Plot, directions []Result) {
				var bars []bar
				for _, r := range directions {
					bars = append(bars, bar{r, "proxy-s/GB", strings.TrimPrefix(r.Work.Name, "bulk/direction=")})
				}
				addBars(p, bars)
			}},
		{"memory.svg", "Memory per idle connection", "kB", "idle/*", func(p *plot.Plot, results []Result) {
			addBars(p, []bar{{results[0], "pss-kB/conn", "PSS of the proxy"},
				{results[0], "kernel-kB/conn", "kernel, client and server too"}})
		}},
	} {
		drawn := slices.DeleteFunc(slices.Clone(results), func(r Result) bool {
			matched, _ := path.Match(kind.works, r.Work.Name) // no pattern is bad
			return !matched
		})
		if len(drawn) == 0 {
			continue // nothing of the kind was measured
		}
		p := plot.New()
		p.Title.Text = kind.title
		p.Y.Label.Text = kind.label
		p.Legend.Top, p.Legend.Left = true, true
		kind.draw(p, drawn)
		p.X.Tick.Label.Font.Size = 9 // the longest name of a proxy fits beside the next
		failure.Check(p.Save(29*vg.Centimeter, 12*vg.Centimeter, filepath.Join(dir, kind.file)))
		shown += "![" + kind.title + "](" + kind.file + ")\n"
	}
	return shown
}

// latencies has a line for each proxy over the percentiles of the ping-pong of 64 clients.
func latencies(p *plot.Plot, results []Result) {
	r := results[0]
	p.Title.Text += ", " + r.Work.Name
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.NominalX("p50", "p99", "p99.9")
	p.X.Min, p.X.Max = -0.7, 2.2 // room for the legend, and for the last label
	var lines []any
	for _, proxy := range r.Proxies {
		var points plotter.XYs
		for x, unit := range []string{"p50-us", "p99-us", "p99.9-us"} {
			if values := r.kept(proxy.Name, unit); len(values) > 0 {
				points = append(points, plotter.XY{X: float64(x), Y: stats.Median(values)})
			}
		}
		if len(points) > 0 {
			lines = append(lines, proxy.Name, points)
		}
	}
	failure.Check(plotutil.AddLinePoints(p, lines...))
}

// bar is a unit of a work: it has a colour, and stands once for each proxy.
type bar struct {
	Result
	unit, title string
}

// addBars groups the bars by proxy.
func addBars(p *plot.Plot, bars []bar) {
	var names []string
	for _, proxy := range bars[0].Proxies {
		if len(bars[0].kept(proxy.Name, bars[0].unit)) > 0 {
			names = append(names, proxy.Name)
		}
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4 // whole bars
	width := 1.6 * vg.Centimeter / vg.Length(len(bars))
	for i, b := range bars {
		values := make(plotter.Values, len(names))
		for x, name := range names {
			if kept := b.kept(name, b.unit); len(kept) > 0 { // no bar where there is nothing
				values[x] = stats.Median(kept)
			}
		}
		chart := failure.Must(plotter.NewBarChart(values, width))
		chart.Color, chart.LineStyle.Width = plotutil.Color(i), 0
		chart.Offset = width * (vg.Length(i) - vg.Length(len(bars)-1)/2)
		p.Add(chart)
		p.Legend.Add(b.title, chart)
	}
}
