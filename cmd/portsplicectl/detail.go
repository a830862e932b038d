package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// detail prints a port with all that there is to say of it.
func detail(w io.Writer, r *row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) // Flush tells of errors
	line := func(name, format string, a ...any) {
		_, _ = fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, a...))
	}
	_, _ = fmt.Fprintln(t, r.Port)
	container := r.Container
	if r.Name != "" {
		container += ", " + r.Name
	}
	line("container", "%s", container)
	where := ""
	if r.Namespace != "" {
		where = ", network namespace " + r.Namespace
	}
	line("state", "%s for %v, engine %s, worker %d, shim %d%s", r.State, r.Age, r.Engine, r.Worker, r.Shim, where)
	what := "connections"
	if r.Protocol == "udp" {
		what = "flows"
	}
	line(what, "%v now, %v in all", r.Connections, r.Total)
	line("received", "%v", r.Received)
	line("sent", "%v", r.Sent)
	line("rate", "%v", r.Rate)
	if r.Spliced.is {
		line("spliced", "%v of all bytes", r.Spliced)
	}
	if r.Protocol != "tcp" {
		line("dropped", "%v", r.Dropped)
	}
	line("errors", "%v", r.Errors)
	if r.Protocol == "tcp" {
		line("bypassed", "%v", r.Bypassed)
	}
	var counters []string
	for _, name := range slices.Sorted(maps.Keys(r.Counters)) {
		if n := r.Counters[name]; n > 0 {
			counters = append(counters, fmt.Sprintf("%s=%d", name, n))
		}
	}
	line("counters", "%s", strings.Join(counters, " "))
	if err := t.Flush(); err != nil {
		return err
	}
	return clients(w, r)
}

// clients prints the busiest ones, if there are any.
func clients(w io.Writer, r *row) error {
	if len(r.Clients) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "\n  CLIENT\tAGE\tRECEIVED\tSENT")
	for _, c := range r.Clients {
		_, _ = fmt.Fprintf(t, "  %s\t%v\t%v\t%v\n",
			c.Address, age(c.Age*float64(time.Second)), size(c.BytesIn), size(c.BytesOut))
	}
	return t.Flush()
}
