package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

// trace is the command that shows connections as they come and go.
func trace() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "trace [[ADDRESS:]PORT[-PORT][/PROTOCOL]]",
		Short: "Show connections and failures as they happen",
		Long: `Show connections and failures as they happen, of all ports or of some, until it is
interrupted. Workers and ports that come meanwhile are followed, too. Root sees all
workers of the host, in every network namespace; others see their own in this one,
and those of their own rootless dockerd.

Nothing is kept for it: what happened before is in the log (-access-log on), and
what comes faster than it can be shown is dropped and counted.`,
		Example: `  portsplicectl trace
  portsplicectl trace 443
  portsplicectl trace --json 127.0.0.1:5432/tcp`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ports := strings.Join(args, "")
			if ports != "" {
				if _, err := config.ParsePattern(ports); err != nil {
					return err
				}
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt)
			defer stop()
			t := tracing{ports: ports, out: c.OutOrStdout(), err: c.ErrOrStderr(), show: sentence, open: map[place]*worker.Stream{}}
			if asJSON {
				t.show = func(w io.Writer, e worker.Event) error { return json.NewEncoder(w).Encode(e) }
			}
			return t.run(ctx)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print what the workers tell, an object a line")
	return c
}

// tracing follows workers.
type tracing struct {
	ports    string // a pattern; empty: all
	out, err io.Writer
	show     func(io.Writer, worker.Event) error

	running sync.WaitGroup
	mu      sync.Mutex
	open    map[place]*worker.Stream // nil for one that has not understood
	broken  error                    // of the output
	lone    bool                     // it was said that there is no worker
	last    string                   // that was said of those that could not be asked
}

// place is where a worker is met.
type place struct{ namespace, name string }

// lookAgain is how often workers are looked for that have come meanwhile.
const lookAgain = time.Second

// run follows until ctx is done, or the output fails.
func (t *tracing) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer t.running.Wait()
	defer t.close()
	defer stop()
	for look := time.NewTicker(lookAgain); ; {
		streams, err := workers.Trace(t.ports, t.known)
		t.mu.Lock()
		for _, s := range streams {
			t.open[place{s.Namespace, s.Name}] = s.Stream
			t.running.Go(func() { t.follow(s, stop) })
		}
		if err != nil && err.Error() != t.last { // of some; others are followed
			t.last = err.Error()
			t.say("%v", err)
		}
		if len(t.open) == 0 && !t.lone {
			t.lone = true
			t.say("no worker serves a port here; waiting for one")
		}
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.broken
		case <-look.C:
		}
	}
}

func (t *tracing) known(namespace, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.open[place{namespace, name}]
	return known
}

func (t *tracing) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.open {
		if s != nil {
			_ = s.Close() // nothing more is wanted of it
		}
	}
}

// follow shows what a worker tells.
func (t *tracing) follow(s workers.Stream, stop func()) {
	defer func() { _ = s.Close() }() // it has ended, or nothing more is wanted of it
	at := place{s.Namespace, s.Name}
	for {
		e, err := s.Next()
		e.Namespace = s.Namespace
		t.mu.Lock()
		switch {
		case errors.Is(err, io.EOF):
			delete(t.open, at) // another may have the name
		case err != nil:
			t.open[at] = nil
			if !errors.Is(err, os.ErrPermission) { // others' workers are not spoken of
				t.say("worker %s: %v", s.Name, err)
			}
		case e.Event == "tracing" && len(e.Ports) == 0:
			t.say("worker %d%s serves no such port; waiting for one", e.Worker, in(e))
		case e.Event == "tracing":
			t.say("tracing %s%s", strings.Join(e.Ports, ", "), in(e))
		default:
			if err = t.show(t.out, e); err != nil {
				t.broken = errors.Join(t.broken, err)
				stop()
			}
		}
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// say tells what is no event; t.mu is held.
func (t *tracing) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.err, format+"\n", args...) // there is nobody else to tell
}

// sentence prints an event for people.
func sentence(w io.Writer, e worker.Event) error {
	_, err := fmt.Fprintf(w, "%s  %-9s  %s\n", e.Time.Local().Format("15:04:05.000000"), e.Event, text(e))
	return err
}

func text(e worker.Event) string {
	if e.Event == "dropped" {
		return fmt.Sprintf("%d events came faster than they could be shown", e.Dropped)
	}
	where := fmt.Sprintf("%s%s  %s → %s", e.Port, in(e), e.Client, e.Backend)
	if e.Client == "" {
		where = fmt.Sprintf("%s%s  → %s", e.Port, in(e), e.Backend)
	}
	switch e.Event {
	case "connected":
		return fmt.Sprintf("%s  after %v", where, duration(e.ConnectSeconds))
	case "ended":
		end := e.Reason
		if e.Error != "" {
			end += ": " + e.Error
		}
		return fmt.Sprintf("%s  %d bytes in, %d bytes out, %v, by %s: %s",
			where, e.ReceivedBytes, e.SentBytes, duration(e.DurationSeconds), e.EndedBy, end)
	case "failed":
		return fmt.Sprintf("%s  %s: %s", where, e.Operation, e.Error)
	}
	return where
}

// in says in which network namespace, if it is another than this process's.
func in(e worker.Event) string {
	if e.Namespace == "" {
		return ""
	}
	return " in " + e.Namespace
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}
