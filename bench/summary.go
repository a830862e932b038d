package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The lines of a README between which the table stands.
const (
	beginTable = "<!-- measured: written by make bench-report -->\n"
	endTable   = "<!-- end -->\n"
)

// oursName is the row that summaries are about: what a user has who follows the README.
const oursName = "shim"

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
func headline(r Report, dir string) string {
	var b strings.Builder
	e := r.Environment
	noisy := ""
	if e.Noise > NoiseLimit {
		noisy = "\nThe rounds differ more than those of a quiet machine do."
	}
	fmt.Fprintf(&b, "%d cores, %s, %s; client, proxy and server on one machine, each in a network of its own; medians of %d rounds in\n"+
		"which all took turns. In brackets is what portsplice has, divided by what docker-proxy has (or the same program built with today's Go, if\n"+
		"that is better): `~` says that they differ by no more than chance explains, bold that portsplice is worse.%s\n"+
		"[All rows, with ranges](%s/README.md).\n\n", e.Cores, e.Kernel, e.Date.Format("2006-01-02"), r.Rounds, noisy, filepath.ToSlash(dir))
	names := []string{"docker-proxy", "nginx", oursName, "bypass", Direct}
	b.WriteString("| | docker-proxy | nginx | portsplice | with the local bypass | no proxy |\n|" + strings.Repeat("---|", 1+len(names)) + "\n")
	results := r.Results()
	for _, h := range headlines {
		i := slices.IndexFunc(results, func(r Result) bool { return r.Work.Name == h.work })
		if i < 0 {
			continue
		}
		unit := results[i].Work.unit(h.unit)
		b.WriteString("| " + h.what + " |")
		for _, name := range names {
			cell := ""
			if f, measured := results[i].Figure(name, unit); measured {
				cell = short(f.Median)
				if name == oursName {
					cell += " (" + f.bold() + ")"
				}
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// unit is the one of that name.
func (w Work) unit(name string) Unit {
	i := slices.IndexFunc(w.Units, func(u Unit) bool { return u.Name == name })
	return w.Units[i]
}

// columns of the summary, by how the names of units begin. What is in none of them is in the last.
var columns = []struct {
	title string
	units []string
}{
	{"rate", []string{"exchange/s", "conn/s", "request/s", "transaction/s", "Gbit/s"}},
	{"p50 / p99 / p99.9 or last", []string{"p50-us", "p99-us", "p99.9-us", "last-us"}},
	{"proxy CPU", []string{"proxy-us/", "proxy-s/"}},
	{"machine CPU", []string{"machine-us/", "machine-s/"}},
	{"other", nil},
}

// summary is a table of all works in a run: ratios to the reference alone, in bold where we lose.
func summary(r Report) string {
	var b strings.Builder
	b.WriteString("Of the shim with its worker: ratios to docker-proxy or its algorithm on the current Go, unit by unit to the one that\n" +
		"we fare worse against. Below 1 is better but for rates, and what we lose is in bold; `~` is within the noise. The last\n" +
		"column is the peer (HAProxy, nginx, systemd-socket-proxyd, socat) that we fare worst against, with our ratio to it in the\n" +
		"unit that counts most: the rate, or else kernel memory.\n\n| work |")
	for _, c := range columns {
		b.WriteString(" " + c.title + " |")
	}
	b.WriteString(" best peer |\n|" + strings.Repeat("---|", 2+len(columns)) + "\n")
	for _, result := range r.Results() {
		for _, p := range result.Proxies {
			if p.Name == oursName && result.Work.Fits(p) {
				b.WriteString(summaryRow(result, p))
			}
		}
	}
	return b.String()
}

func summaryRow(r Result, p Proxy) string {
	if why := r.Absence(p); why != "" {
		return "| " + r.Work.Name + " | " + why + " |" + strings.Repeat(" |", len(columns)) + "\n"
	}
	cells := make([][]string, len(columns))
	for _, u := range r.Units() {
		f, measured := r.Figure(p.Name, u)
		if !measured || math.IsNaN(f.Ratio) || strings.HasPrefix(u.Name, "load-") {
			continue
		}
		text := f.bold()
		at := column(u)
		if at == len(columns)-1 {
			text = u.Name + " " + text
		}
		cells[at] = append(cells[at], text)
	}
	row := "| " + r.Work.Name + " |"
	for i, c := range cells {
		separator := " / "
		if i == len(columns)-1 {
			separator = ", "
		}
		row += " " + strings.Join(c, separator) + " |"
	}
	peer := ""
	if name, c := r.BestPeer(p.Name); name != "" {
		peer = name + " " + c.bold()
	}
	return row + " " + peer + " |\n"
}

// bold is bold where we lose.
func (c Comparison) bold() string {
	if c.Worse {
		return "**" + c.String() + "**"
	}
	return c.String()
}

// column is where a unit is shown.
func column(u Unit) int {
	for i, c := range columns {
		for _, beginning := range c.units {
			if strings.HasPrefix(u.Name, beginning) {
				return i
			}
		}
	}
	return len(columns) - 1
}

// replaceTable puts a new table between the lines of a file that are there for it.
func replaceTable(file, table string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(old, []byte(beginTable))
	_, after, ends := bytes.Cut(rest, []byte(endTable))
	if !begins || !ends {
		return fmt.Errorf("%s: no lines %q and %q", file, beginTable, endTable)
	}
	text := string(before) + beginTable + "\n" + table + "\n" + endTable + string(after)
	return os.WriteFile(file, []byte(text), 0o644)
}
