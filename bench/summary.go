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

// engines are what the summary is about: what a user has who sets nothing.
var engines = []string{"splice", "udp"}

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

// summary is the table of the project's README: ratios to the reference alone, in bold where we lose.
func summary(r Report, dir string) string {
	var b strings.Builder
	e := r.Environment
	noisy := ""
	if e.Noise > NoiseLimit {
		noisy = " The run calls itself noisy."
	}
	fmt.Fprintf(&b, "Over veth on %d cores, %s, %s: ratios to docker-proxy or its algorithm on the current Go, unit by unit to\n"+
		"the one that we fare worse against; medians of %d alternating rounds. Below 1 is better but for rates, and what we lose\n"+
		"is in bold; ~ is within the noise, known from two rows of one program. The last column is the peer (HAProxy, nginx, systemd-socket-proxyd, socat) that we fare worst against, with\n"+
		"our ratio to it in the unit that counts most: the rate, or else kernel memory.%s\n"+
		"[The report](%s) has the figures with ranges, a direct connection and the portable engine.\n\n",
		e.Cores, e.Kernel, e.Date.Format("2006-01-02"), r.Rounds, noisy, filepath.ToSlash(dir))
	b.WriteString("| work |")
	for _, c := range columns {
		b.WriteString(" " + c.title + " |")
	}
	b.WriteString(" best peer |\n|" + strings.Repeat("---|", 2+len(columns)) + "\n")
	for _, result := range r.Results() {
		for _, p := range result.Proxies {
			if slices.Contains(engines, p.Name) && result.Work.Fits(p) {
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
