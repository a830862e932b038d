package main

import (
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// plotFile is a plot beside the report.
type plotFile struct{ name, title string }

// drawPlots draws what the works of a run allow.
func drawPlots(dir string, results []Result) ([]plotFile, error) {
	var files []plotFile
	for _, kind := range []struct {
		name, title string
		draw        func([]Result) (*plot.Plot, error)
	}{
		{"latency.svg", "Time until the answer", latencies},
		{"cpu.svg", "CPU time of the proxy per GB", cpuPerGB},
		{"memory.svg", "Memory per idle connection", memoryPerConnection},
	} {
		p, err := kind.draw(results)
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue // nothing of the kind was measured
		}
		p.Title.Text = kind.title + p.Title.Text
		p.X.Tick.Label.Font.Size = 9 // the longest name of a proxy fits beside the next
		if err := p.Save(29*vg.Centimeter, 12*vg.Centimeter, filepath.Join(dir, kind.name)); err != nil {
			return nil, err
		}
		files = append(files, plotFile{kind.name, kind.title})
	}
	return files, nil
}

// median is a figure of a proxy, if it was measured.
func median(r Result, proxy, unit string) (float64, bool) {
	f, measured := r.Figure(proxy, Unit{Name: unit})
	return f.Median, measured
}

// latencies has a line for each proxy over the percentiles of the ping-pong of 64 clients.
func latencies(results []Result) (*plot.Plot, error) {
	i := slices.IndexFunc(results, func(r Result) bool { return r.Work.Name == "pingpong/size=64/conns=64" })
	if i < 0 {
		return nil, nil
	}
	r := results[i]
	percentiles := []string{"p50-us", "p99-us", "p99.9-us"}
	p := plot.New()
	p.Title.Text = ", " + r.Work.Name
	p.Y.Label.Text = "microseconds"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.NominalX("p50", "p99", "p99.9")
	p.X.Min, p.X.Max = -0.7, 2.2 // room for the legend, and for the last label
	p.Legend.Top, p.Legend.Left = true, true
	var lines []any
	for _, proxy := range r.Proxies {
		var points plotter.XYs
		for x, unit := range percentiles {
			if y, measured := median(r, proxy.Name, unit); measured {
				points = append(points, plotter.XY{X: float64(x), Y: y})
			}
		}
		if len(points) > 0 {
			lines = append(lines, proxy.Name, points)
		}
	}
	return p, plotutil.AddLinePoints(p, lines...)
}

// cpuPerGB has a group of bars for each proxy, a bar for each direction of the bulk of 8 flows.
func cpuPerGB(results []Result) (*plot.Plot, error) {
	var bars []bar
	for _, r := range results {
		if strings.HasPrefix(r.Work.Name, "bulk/") && strings.HasSuffix(r.Work.Name, "/conns=8") {
			bars = append(bars, bar{r, "proxy-s/GB", strings.TrimPrefix(r.Work.Name, "bulk/direction=")})
		}
	}
	return barChart("seconds", bars)
}

// memoryPerConnection has what processes and what the kernel hold.
func memoryPerConnection(results []Result) (*plot.Plot, error) {
	for _, r := range results {
		if strings.HasPrefix(r.Work.Name, "idle/") {
			return barChart("kB", []bar{
				{r, "pss-kB/conn", "PSS of the proxy"}, {r, "kernel-kB/conn", "kernel, client and server too"}})
		}
	}
	return nil, nil
}

// bar is a unit of a work: it has a colour, and stands once for each proxy.
type bar struct {
	Result
	unit, title string
}

// barChart groups the bars by proxy.
func barChart(label string, bars []bar) (*plot.Plot, error) {
	if len(bars) == 0 {
		return nil, nil
	}
	var names []string
	for _, proxy := range bars[0].Proxies {
		if _, measured := median(bars[0].Result, proxy.Name, bars[0].unit); measured {
			names = append(names, proxy.Name)
		}
	}
	p := plot.New()
	p.Y.Label.Text = label
	p.Legend.Top, p.Legend.Left = true, true
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4 // whole bars
	width := 1.6 * vg.Centimeter / vg.Length(len(bars))
	for i, b := range bars {
		values := make(plotter.Values, len(names))
		for x, name := range names {
			values[x], _ = median(b.Result, name, b.unit) // no bar where there is nothing
		}
		chart, err := plotter.NewBarChart(values, width)
		if err != nil {
			return nil, err
		}
		chart.Color, chart.LineStyle.Width = plotutil.Color(i), 0
		chart.Offset = width * (vg.Length(i) - vg.Length(len(bars)-1)/2)
		p.Add(chart)
		p.Legend.Add(b.title, chart)
	}
	return p, nil
}
