package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files of a published run.
const (
	textFile = "ratios.txt"   // the tables
	rawFile  = "raw.txt"      // every measurement, for benchstat
	jsonFile = "results.json" // the Report
)

// report makes a run readable: beside its results.json it writes README.md, with a table for each work, and plots.
func report(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("report", flag.ExitOnError)
	readme := fs.String("readme", "", "file whose table is to be written anew")
	_ = fs.Parse(args) // it exits
	if fs.NArg() != 1 {
		return fmt.Errorf("usage: bench report [-readme FILE] DIRECTORY")
	}
	dir := fs.Arg(0)
	r, err := ReadReport(dir)
	if err != nil {
		return err
	}
	plots, err := drawPlots(dir, r.Results())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "README.md"), []byte(r.page(plots)), 0o644)
	}
	if err != nil || *readme == "" {
		return err
	}
	return replaceTable(*readme, headline(r, dir))
}

// page is the report of a run: where it was measured, the plots, and a table for each work.
func (r Report) page(plots []plotFile) string {
	var b strings.Builder
	e := r.Environment
	fmt.Fprintf(&b, "# Measured on %s, %s\n\n```\n%s%s```\n\n", e.Date.Format("2006-01-02"), e.Kernel,
		e.Head(r.Proxies), strings.TrimPrefix(e.Foot(r.Rounds), "\n"))
	fmt.Fprintf(&b, "Medians of %d rounds of %s that alternate between the proxies, [from least to most]. Behind them the "+
		"ratio to the\nreference: docker-proxy or goref, its algorithm built with this Go, whichever leaves the worse one. "+
		"**Bold**: one of ours is worse.\n`~`: within the noise, so neither better nor worse. The noise is twice the\n"+
		"standard error of such a median of ratios, taken from how far two rows of one program (the second is named -again) are "+
		"apart\nin each round; above a table stands that of its first unit.\n[The documentation](../../doc.go) says what is measured and where. Raw output: "+
		"[tables](ratios.txt), [JSON](results.json), and\n[for benchstat](raw.txt): "+
		"`benchstat -col '/proxy@(docker-proxy splice)' raw.txt`.\n\n", r.Rounds, r.Time)
	b.WriteString(summary(r) + "\n")
	for _, p := range plots {
		fmt.Fprintf(&b, "![%s](%s)\n", p.title, p.name)
	}
	for _, result := range r.Results() {
		b.WriteString(result.markdown())
	}
	return b.String()
}

// Report is all that a run measured.
type Report struct {
	Environment Environment `json:"environment"`
	Rounds      int         `json:"rounds"`
	Time        string      `json:"time"`
	Proxies     []Proxy     `json:"proxies"`
	Works       []Work      `json:"works"`
	Samples     []Sample    `json:"samples"`
}

// add adds a result, and what the load is after it.
func (r *Report) add(result Result) (err error) {
	r.Works = append(r.Works, result.Work)
	r.Samples = append(r.Samples, result.Samples...)
	r.Environment.Noise = max(r.Environment.Noise, result.DirectMoved())
	r.Environment.LoadAfter, err = loadAverage()
	return err
}

// Results gives what was measured, work by work.
func (r Report) Results() []Result {
	var results []Result
	for _, w := range r.Works {
		samples := slices.DeleteFunc(slices.Clone(r.Samples), func(s Sample) bool { return s.Work != w.Name })
		results = append(results, Result{Work: w, Proxies: r.Proxies, Samples: samples})
	}
	return results
}

// Text is the report as it is printed.
func (r Report) Text() string {
	var b strings.Builder
	b.WriteString(r.Environment.Head(r.Proxies))
	for _, result := range r.Results() {
		b.WriteString(result.String())
	}
	b.WriteString(r.Environment.Foot(r.Rounds))
	return b.String()
}

// Write writes the report to a directory, which it makes.
func (r Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r.Proxies = slices.Clone(r.Proxies)
	for i, p := range r.Proxies {
		if p.Path != "" {
			r.Proxies[i].Path = filepath.Base(p.Path) // where it was built is nobody's concern
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{textFile: r.Text(), rawFile: r.Raw(), jsonFile: string(b) + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ReadReport reads what Write has written.
func ReadReport(dir string) (r Report, err error) {
	b, err := os.ReadFile(filepath.Join(dir, jsonFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", filepath.Join(dir, jsonFile), err)
	}
	return r, nil
}

// Raw is the measurements that count in the format of Go's benchmarks, one line each, for benchstat.
func (r Report) Raw() string {
	e := r.Environment
	var b strings.Builder
	fmt.Fprintf(&b, "goos: linux\npkg: github.com/portsplice/portsplice/bench\ncpu: %s\nkernel: %s\n", e.CPU, e.Kernel)
	more := map[string]bool{}
	for _, w := range r.Works {
		for _, u := range w.Units {
			more[u.Name] = u.More
		}
	}
	for _, unit := range slices.Sorted(maps.Keys(more)) {
		fmt.Fprintf(&b, "Unit %s better=%s\n", unit, map[bool]string{true: "higher", false: "lower"}[more[unit]])
	}
	for _, s := range r.Samples {
		if s.Round > 0 && len(s.Values) > 0 {
			fmt.Fprintf(&b, "Benchmark%s 1%s\n", "Proxies/"+subBenchmark(s.Proxy, s.Work), s.Values)
		}
	}
	return b.String()
}

// subBenchmark is the name of a measurement, below that of the benchmark.
func subBenchmark(proxy, work string) string { return "proxy=" + proxy + "/work=" + work }

// String is the values as a benchmark prints them.
func (v Values) String() string {
	var b strings.Builder
	for _, unit := range slices.Sorted(maps.Keys(v)) {
		fmt.Fprintf(&b, " %.6g %s", v[unit], unit)
	}
	return b.String()
}
