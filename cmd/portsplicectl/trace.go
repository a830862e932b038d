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
)

// trace is the command that shows connections as they come and go.
func trace() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "trace [[ADDRESS:]PORT[-PORT][/PROTOCOL]]",
		Short: "Show connections and failures as they happen",
		Long: `Show connections and failures as they happen, of all ports or of some, until it is
interrupted. Workers and ports that come meanwhile are followed, too.

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
			t := tracing{ports: ports, out: c.OutOrStdout(), err: c.ErrOrStderr(), show: sentence, open: map[string]*worker.Stream{}}
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
	open    map[string]*worker.Stream // nil for one that has not understood
	broken  error                     // of the output
	lone    bool                      // it was said that there is no worker
}

// lookAgain is how often workers are looked for that have come meanwhile.
const lookAgain = time.Second

// run follows until ctx is done, or the output fails.
func (t *tracing) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer t.running.Wait()
	defer t.close()
	defer stop()
	for look := time.NewTicker(lookAgain); ; {
		streams, err := worker.Trace(t.ports, t.known)
		if err != nil {
			return err
		}
		t.mu.Lock()
		for _, s := range streams {
			t.open[s.Name] = s
			t.running.Go(func() { t.follow(s, stop) })
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

func (t *tracing) known(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.open[name]
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
func (t *tracing) follow(s *worker.Stream, stop func()) {
	defer func() { _ = s.Close() }() // it has ended, or nothing more is wanted of it
	for {
		e, err := s.Next()
		t.mu.Lock()
		switch {
		case errors.Is(err, io.EOF):
			delete(t.open, s.Name) // another may have the name
		case err != nil:
			t.open[s.Name] = nil
			if !errors.Is(err, os.ErrPermission) { // others' workers are not spoken of
				t.say("worker %s: %v", s.Name, err)
			}
		case e.Event == "tracing" && len(e.Ports) == 0:
			t.say("worker %d serves no such port; waiting for one", e.Worker)
		case e.Event == "tracing":
			t.say("tracing %s", strings.Join(e.Ports, ", "))
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
	where := fmt.Sprintf("%s  %s → %s", e.Port, e.Client, e.Backend)
	if e.Client == "" {
		where = fmt.Sprintf("%s  → %s", e.Port, e.Backend)
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

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}
