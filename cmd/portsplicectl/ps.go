package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

// ps is the command that lists ports.
func ps() *cobra.Command { return psOn(thisHost()) }

func psOn(h host) *cobra.Command {
	o := psOptions{host: h}
	c := &cobra.Command{
		Use:   "ps [PORT...]",
		Short: "List the published ports that workers serve",
		Long: `List the published ports that workers serve on this host. Root sees all of them,
in every network namespace, such as those of rootless dockerds; others see those
of their own workers in this one, and of their own rootless dockerd.

With ports, such as 443, 443/tcp, 127.0.0.1:443 or [::]:5000-5099/udp, it shows
each of them in detail, with its busiest clients.

A port that is served without a worker, as with PORTSPLICE_WORKER=off, is not
listed: "ss -lnp" shows it. BYPASSED counts connections of local clients that went
to the container without the proxy (-local-bypass), or says why they cannot.

--format is as docker has it: "table", "json", a Go template for each port, or
"table" and a template. The fields are
  Port Protocol Published Container Name State Engine Since Age Connections Total
  Received Sent Rate Spliced Bypassed Bypass Dropped Errors Worker Shim Namespace
  Counters Clients
and the functions json, join, split, lower, upper, title, pad and truncate. A
field prints as people read it; printf "%d" .Received gives the plain number.
docs/operations.md says what each of them means.`,
		Example: `  portsplicectl ps --watch
  portsplicectl ps 443/tcp
  portsplicectl ps --json | jq '.[] | select(.errors.refused > 0) | .port'
  portsplicectl ps --format 'table {{.Port}}\t{{.Name}}\t{{.Connections}}'`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, args) },

		ValidArgsFunction: completePorts,
	}
	f := c.Flags()
	f.BoolVar(&o.json, "json", false, "print all ports as one JSON list")
	f.StringVar(&o.format, "format", "", `print each port by a template: "table TEMPLATE", "TEMPLATE" or "json"`)
	f.BoolVarP(&o.watch, "watch", "w", false, "go on, with a live table on a terminal, until interrupted")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "how often --watch looks")
	f.DurationVar(&o.sample, "rate", 0, "look twice, that `long` apart, to tell the rate (--watch always does)")
	f.Lookup("rate").NoOptDefVal = "1s"
	f.IntVar(&o.clients, "clients", 10, "how many of the busiest clients of a port to show")
	c.MarkFlagsMutuallyExclusive("json", "format")
	c.MarkFlagsMutuallyExclusive("watch", "rate")
	return c
}

type psOptions struct {
	json, watch      bool
	format           string
	interval, sample time.Duration
	clients          int

	host     host
	patterns []pattern
	print    printer
}

// host is who is asked.
type host struct {
	list    func() ([]workers.Answer[worker.List], error)
	clients func(question string) ([]workers.Answer[worker.Clients], error)
	names   func() map[netip.Addr]string
}

func thisHost() host {
	return host{
		list:    func() ([]workers.Answer[worker.List], error) { return workers.Ask[worker.List]("list") },
		clients: workers.Ask[worker.Clients],
		names:   func() map[netip.Addr]string { return containerNames(dockerSocket()) },
	}
}

func (o *psOptions) run(c *cobra.Command, args []string) (err error) {
	switch {
	case o.interval < 100*time.Millisecond:
		return fmt.Errorf("--interval %v: want 100ms at least", o.interval)
	case o.sample < 0:
		return fmt.Errorf("--rate %v: want a time above zero", o.sample)
	case o.clients < 0 || o.clients > worker.MaxClients:
		return fmt.Errorf("--clients %d: want a number up to %d", o.clients, worker.MaxClients)
	}
	for _, text := range args {
		p, err := parsePattern(text)
		if err != nil {
			return err
		}
		o.patterns = append(o.patterns, p)
	}
	switch {
	case o.json:
		o.print = asJSON
	case o.format != "":
		if o.print, err = format(o.format); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
	case len(args) > 0:
		o.print = details
	default:
		o.print = table
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.watch {
		return o.watchOn(ctx, c.OutOrStdout(), c.ErrOrStderr())
	}
	var before look
	if o.sample > 0 {
		if before, err = o.look(look{}); err != nil && len(before.rows) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(o.sample):
		}
	}
	l, err := o.look(before)
	if l.none && err == nil {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), nobody()) // it is an extra
	}
	if l.rows == nil {
		return err
	}
	var text bytes.Buffer // a table is written in thousands of parts
	if err := o.print(&text, l.rows); err != nil {
		return err
	}
	_, failed := text.WriteTo(c.OutOrStdout())
	return errors.Join(failed, err)
}

// nobody says that there is no worker.
func nobody() string {
	if os.Geteuid() == 0 {
		return "No portsplice worker runs on this host."
	}
	return "No portsplice worker of yours runs in this network namespace, or by a rootless dockerd of yours. Root sees those of others, and of other namespaces."
}

// look is what was seen at a time.
type look struct {
	at   time.Time
	rows []*row // nil: the ports that were asked for are not there
	none bool   // there is no worker
}

// look asks the workers. The rates are since another look.
func (o *psOptions) look(before look) (look, error) {
	names := make(chan map[netip.Addr]string, 1)
	go func() { names <- o.host.names() }()
	answers, err := o.host.list()
	l := look{at: time.Now(), none: len(answers) == 0}
	l.rows = rowsOf(answers, l.at)
	name(l.rows, <-names)
	var failed error
	if !l.none || len(o.patterns) > 0 {
		l.rows, failed = selected(l.rows, o.patterns)
	}
	l.rate(before)
	if len(o.patterns) > 0 {
		failed = errors.Join(failed, o.askClients(l.rows))
	}
	return l, errors.Join(err, failed)
}

// name gives the containers of this network namespace their names.
func name(rows []*row, names map[netip.Addr]string) {
	for _, r := range rows {
		if r.Namespace == "" { // elsewhere the same address may be another container's
			r.Name = names[addressOf(r.Container).Addr()]
		}
	}
}

// rate sets how many bytes a second have moved since another look, of ports that were there.
func (l *look) rate(before look) {
	elapsed := l.at.Sub(before.at).Seconds()
	past := map[key]size{}
	for _, r := range before.rows {
		past[r.key()] = r.Received + r.Sent
	}
	for _, r := range l.rows {
		if moved, was := past[r.key()]; was && elapsed > 0 {
			r.Rate = rate{known{float64(r.Received+r.Sent-moved) / elapsed, true}}
		}
	}
}

// askClients asks for the busiest clients of ports. A worker that has gone meanwhile, or is older than the question, tells
// of none.
func (o *psOptions) askClients(rows []*row) error {
	asked := map[string][]workers.Answer[worker.Clients]{}
	for _, r := range rows {
		question := fmt.Sprintf("clients %d %s %s", o.clients, r.Protocol, r.Published)
		answers, again := asked[question]
		if !again {
			var err error
			if answers, err = o.host.clients(question); err != nil && len(answers) == 0 {
				return err
			}
			asked[question] = answers
		}
		for _, a := range answers {
			for _, p := range a.Told.Ports {
				if a.Namespace == r.Namespace && a.Told.Worker == r.Worker && p.Shim == r.Shim {
					r.Clients = p.Clients
				}
			}
		}
	}
	return nil
}

// completePorts is for the shell.
func completePorts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	answers, _ := thisHost().list() // there is nowhere to say what is wrong
	var ports []string
	for _, r := range rowsOf(answers, time.Now()) {
		ports = append(ports, r.Port)
	}
	return ports, cobra.ShellCompDirectiveNoFileComp
}

// details prints each port with all that there is to say of it.
func details(w io.Writer, rows []*row) error {
	for i, r := range rows {
		if i > 0 {
			_, _ = fmt.Fprintln(w) // or what follows fails
		}
		if err := detail(w, r); err != nil {
			return err
		}
	}
	return nil
}
