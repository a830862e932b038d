package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/bench"
)

// settings are the flags.
type settings struct {
	bench.Options
	rounds int
	time   time.Duration
	works  string
	json   string
}

// report is all that was measured, for programs.
type report struct {
	Environment bench.Environment `json:"environment"`
	Rounds      int               `json:"rounds"`
	Time        string            `json:"time"`
	Proxies     []bench.Proxy     `json:"proxies"`
	Samples     []bench.Sample    `json:"samples"`
	failures    []string
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 5, "rounds that count; one more comes before and is dropped")
	flag.DurationVar(&s.time, "time", 800*time.Millisecond, "how long traffic is measured in a round")
	flag.StringVar(&s.works, "work", "", "comma-separated names such as pingpong or bulk/direction=up (default all)")
	flag.StringVar(&s.Portsplice, "proxy", "", "the portsplice to measure (default: built from this tree)")
	flag.StringVar(&s.Reference, "reference", "", "the docker-proxy to compare with (default: from PATH)")
	flag.StringVar(&s.json, "json", "", "also write all samples to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := s.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
}

func (s settings) run(ctx context.Context) (err error) {
	works, err := bench.Select(s.works)
	if err != nil {
		return err
	}
	if s.rounds < 1 {
		return fmt.Errorf("-rounds %d: must be at least 1", s.rounds)
	}
	dir, err := os.MkdirTemp("", "portsplice-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs, err := bench.Build(ctx, dir, s.Options)
	if err != nil {
		return err
	}
	r := report{Rounds: s.rounds, Time: s.time.String(), Proxies: programs.Proxies}
	if r.Environment, err = bench.ReadEnvironment(); err != nil {
		return err
	}
	fmt.Print(r.Environment.Head(r.Proxies))
	for _, work := range works {
		if err := r.measure(ctx, programs, work, s.time); err != nil {
			return err
		}
	}
	if r.Environment.LoadAfter, err = bench.LoadAverage(); err != nil {
		return err
	}
	fmt.Print(r.Environment.Foot())
	if err := r.write(s.json); err != nil {
		return err
	}
	if len(r.failures) > 0 {
		return fmt.Errorf("no figures of\n%s", strings.Join(r.failures, "\n"))
	}
	return nil
}

func (r report) write(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// measure measures one work and prints its table.
func (r *report) measure(ctx context.Context, programs *bench.Programs, work bench.Work, d time.Duration) error {
	samples, err := bench.Rounds(ctx, r.Rounds, work, programs.Proxies,
		func(ctx context.Context, w bench.Work, p bench.Proxy, round int) (bench.Values, error) {
			if round == 0 {
				return programs.Measure(ctx, w, p, d/4)
			}
			return programs.Measure(ctx, w, p, d)
		})
	if err != nil {
		return err
	}
	result := bench.Result{Work: work, Proxies: programs.Proxies, Samples: samples}
	r.Samples = append(r.Samples, samples...)
	r.Environment.Noise = max(r.Environment.Noise, result.Noise())
	fmt.Print(result)
	r.failures = append(r.failures, result.Failures()...)
	return nil
}
