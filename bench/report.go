package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// jsonFile is the Report in the directory of a published run.
const jsonFile = "results.json"

// The lines of a README between which the table stands.
const (
	beginTable = "<!-- measured: written by make bench-report -->\n"
	endTable   = "<!-- end -->\n"
)

// oursName is the row that summaries are about: what a user has who follows the README.
const oursName = "shim"

// report makes a run readable: beside its results.json it writes README.md, with a table for each work, and plots.
func report(_ context.Context, args []string) {
	fs := flag.NewFlagSet("report", flag.ExitOnError)
	readme := fs.String("readme", "", "file whose table is to be written anew")
	_ = fs.Parse(args) // it exits
	if fs.NArg() != 1 {
		failure.Fail("usage: bench report [-readme FILE] DIRECTORY")
	}
	dir, r := fs.Arg(0), Report{}
	file := filepath.Join(dir, jsonFile)
	if err := json.Unmarshal(failure.Must(os.ReadFile(file)), &r); err != nil {
		failure.Fail("%s: %w", file, err)
	}
	write(filepath.Join(dir, "README.md"), r.page(drawPlots(dir, r.Results())))
	if *readme != "" {
		replaceTable(*readme, r.headline(dir))
	}
}

func write(file, text string) { failure.Check(os.WriteFile(file, []byte(text), 0o644)) }

// replaceTable puts a new table between the lines of a file that are there for it.
func replaceTable(file, table string) {
	before, rest, begins := strings.Cut(string(failure.Must(os.ReadFile(file))), beginTable)
	_, after, ends := strings.Cut(rest, endTable)
	if !begins || !ends {
		failure.Fail("%s: no lines %q and %q", file, beginTable, endTable)
	}
	write(file, before+beginTable+"\n"+table+"\n"+endTable+after)
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
func (r *Report) add(result Result) {
	r.Works = append(r.Works, result.Work)
	r.Samples = append(r.Samples, result.Samples...)
	r.Environment.Noise = max(r.Environment.Noise, result.DirectMoved())
	r.Environment.LoadAfter = loadAverage()
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

// Write writes the report to a directory, which it makes: every measurement for benchstat, and the report itself.
func (r Report) Write(dir string) {
	failure.Check(os.MkdirAll(dir, 0o755))
	r.Proxies = slices.Clone(r.Proxies)
	for i, p := range r.Proxies {
		if p.Path != "" {
			r.Proxies[i].Path = filepath.Base(p.Path) // where it was built is nobody's concern
		}
	}
	write(filepath.Join(dir, "raw.txt"), r.Raw())
	write(filepath.Join(dir, jsonFile), string(failure.Must(json.Marshal(r)))+"\n")
}

// Raw is the measurements that count in the format of Go's benchmarks, one line each, for benchstat.
func (r Report) Raw() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: linux\npkg: github.com/portsplice/portsplice/bench\ncpu: %s\nkernel: %s\n",
		r.Environment.CPU, r.Environment.Kernel)
	better := map[string]string{}
	for _, w := range r.Works {
		for _, u := range w.Units {
			better[u.Name] = map[bool]string{true: "higher", false: "lower"}[u.More]
		}
	}
	for _, unit := range slices.Sorted(maps.Keys(better)) {
		fmt.Fprintf(&b, "Unit %s better=%s\n", unit, better[unit])
	}
	for _, s := range r.Samples {
		if s.Round > 0 && len(s.Values) > 0 {
			fmt.Fprintf(&b, "BenchmarkProxies/proxy=%s/work=%s 1%s\n", s.Proxy, s.Work, s.Values)
		}
	}
	return b.String()
}

// String is the values as a benchmark prints them.
func (v Values) String() string {
	var b strings.Builder
	for _, unit := range slices.Sorted(maps.Keys(v)) {
		fmt.Fprintf(&b, " %.6g %s", v[unit], unit)
	}
	return b.String()
}

// page is the report of a run: where it was measured, the plots, and a table for each work.
func (r Report) page(plots string) string {
	var b strings.Builder
	e := r.Environment
	fmt.Fprintf(&b, "# Measured on %s, %s\n\n```\n%s%s```\n\n", e.Date.Format("2006-01-02"), e.Kernel,
		e.Head(r.Proxies), strings.TrimPrefix(e.Foot(r.Rounds), "\n"))
	fmt.Fprintf(&b, "Medians of %d rounds of %s that alternate between the proxies, [from least to most]. Behind them the "+
		"ratio to the\nreference: docker-proxy (moby's newest) or docker.io (the distribution's), whichever leaves the worse one. "+
		"**Bold**: one of ours is worse.\n`~`: within the noise, so neither better nor worse. The noise is twice the\n"+
		"standard error of such a median of ratios, taken from how far two rows of one program (the second is named -again) are "+
		"apart\nin each round; above a table stands that of its first unit.\n[The documentation](../../doc.go) says what is "+
		"measured and where. Raw output: [JSON](results.json), and [for benchstat](raw.txt): "+
		"`benchstat -col '/proxy@(docker-proxy splice)' raw.txt`.\n\n", r.Rounds, r.Time)
	b.WriteString(r.summary() + "\n" + plots)
	for _, result := range r.Results() {
		b.WriteString(result.String())
	}
	return b.String()
}

// columns of the summary, by how the names of units begin. What is in none of the others is in the last.
var columns = []struct {
	title, separator string
	units            []string
}{
	{"rate", " / ", []string{"exchange/s", "conn/s", "request/s", "transaction/s", "Gbit/s"}},
	{"p50 / p99 / p99.9 or last", " / ", []string{"p50-us", "p99-us", "p99.9-us", "last-us"}},
	{"proxy CPU", " / ", []string{"proxy-us/", "proxy-s/"}},
	{"machine CPU", " / ", []string{"machine-us/", "machine-s/"}},
	{"other", ", ", []string{""}},
}

// summary is a table of all works in a run: ratios to the reference alone, in bold where we lose.
func (r Report) summary() string {
	text := "Of the shim with its worker: ratios to docker-proxy, moby's newest or the distribution's, unit by unit to the one " +
		"that\nwe fare worse against. Below 1 is better but for rates, and what we lose is in bold; `~` is within the noise. " +
		"The last\ncolumn is the peer (HAProxy, nginx, systemd-socket-proxyd, socat) that we fare worst against, with our " +
		"ratio to it in the\nunit that counts most: the rate, or else kernel memory.\n\n"
	titles := []string{"work"}
	for _, c := range columns {
		titles = append(titles, c.title)
	}
	rows := [][]string{append(titles, "best peer")}
	for _, result := range r.Results() {
		for _, p := range result.Proxies {
			if p.Name == oursName && result.Work.Fits(p) {
				rows = append(rows, result.summary(p))
			}
		}
	}
	return text + table(rows)
}

// summary is the row of a work.
func (r Result) summary(p Proxy) []string {
	row := make([]string, 2+len(columns))
	row[0] = r.Work.Name
	if row[1] = r.Absence(p); row[1] != "" {
		return row
	}
	for _, u := range r.Work.Units {
		f, measured := r.Figure(p.Name, u)
		if !measured || math.IsNaN(f.Ratio) || strings.HasPrefix(u.Name, "load-") {
			continue
		}
		begins := func(with string) bool { return strings.HasPrefix(u.Name, with) }
		cell, i := f.bold(f.Comparison.String()), 0
		for !slices.ContainsFunc(columns[i].units, begins) {
			i++
		}
		if i == len(columns)-1 {
			cell = u.Name + " " + cell
		}
		if row[1+i] != "" {
			cell = row[1+i] + columns[i].separator + cell
		}
		row[1+i] = cell
	}
	if name, c := r.against(p.Name, r.Work.Units[0], func(p Proxy) bool { return p.Peer }); name != "" {
		row[len(row)-1] = name + " " + c.bold(c.String())
	}
	return row
}

// headlines are the rows of the project's README.
var headlines = []struct{ what, work, unit string }{
	{"small messages, there and back (64 B, 64 clients), a second", "pingpong/size=64/conns=64", "exchange/s"},
	{"short connections, one message each (8 clients), a second", "crr/conns=8", "conn/s"},
	{"downloads (8 at once), Gbit/s together", "bulk/direction=down/conns=8", "Gbit/s"},
	{"a small message beside 8 downloads: microseconds, of which 1 in 100 takes more", "message-beside/streams=8", "p99-us"},
	{"an open connection without traffic, kB of the kernel's memory", "idle/conns=2000", "kernel-kB/conn"},
	{"a published port without traffic (200 of them), kB of the machine's memory", "start/ports=200", "machine-kB/port"},
	{"small messages from the host itself (64 B, 64 clients), a second", "local-pingpong/size=64/conns=64", "exchange/s"},
	{"UDP, there and back (200 B, 64 clients), a second", "udp-echo/size=200/conns=64/window=1", "exchange/s"},
}

// headline is the table of the project's README: medians side by side.
func (r Report) headline(dir string) string {
	e := r.Environment
	noisy := ""
	if e.Noise > NoiseLimit {
		noisy = "\nThe rounds differ more than those of a quiet machine do."
	}
	text := fmt.Sprintf("%d cores, %s, %s; client, proxy and server on one machine, each in a network of its own; medians "+
		"of %d rounds in\nwhich all took turns. In brackets is what portsplice has, divided by what docker-proxy has (moby's newest, or "+
		"the one of Debian's\ndocker.io if that is better): `~` says that they differ by no more than chance explains, "+
		"bold that portsplice is worse.%s\n[All rows, with ranges](%s/README.md).\n\n",
		e.Cores, e.Kernel, e.Date.Format("2006-01-02"), r.Rounds, noisy, filepath.ToSlash(dir))
	rows := [][]string{{"", "docker-proxy", "nginx", "portsplice", "with the local bypass", "no proxy"}}
	for _, h := range headlines {
		for _, result := range r.Results() {
			i := slices.IndexFunc(result.Work.Units, func(u Unit) bool { return u.Name == h.unit })
			if result.Work.Name != h.work || i < 0 {
				continue
			}
			row := []string{h.what}
			for _, name := range []string{"docker-proxy", "nginx", oursName, "bypass", Direct} {
				cell := ""
				if f, measured := result.Figure(name, result.Work.Units[i]); measured {
					cell = short(f.Median)
					if name == oursName {
						cell += " (" + f.bold(f.Comparison.String()) + ")"
					}
				}
				row = append(row, cell)
			}
			rows = append(rows, row)
		}
	}
	return text + table(rows)
}
