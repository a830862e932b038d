package main

import (
	"cmp"
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
	bench.Set
	json string
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
	set := flag.String("set", "full", "quick or full: what the next three are if they are not given")
	flag.IntVar(&s.Rounds, "rounds", 0, "rounds that count; one more comes before and is dropped")
	flag.DurationVar(&s.Time, "time", 0, "how long traffic is measured in a round")
	flag.StringVar(&s.Works, "work", "", "comma-separated names such as pingpong or bulk/direction=up")
	flag.StringVar(&s.Portsplice, "proxy", "", "the portsplice to measure (default: built from this tree)")
	flag.StringVar(&s.Reference, "reference", "", "the docker-proxy to compare with (default: from PATH)")
	flag.StringVar(&s.json, "json", "", "also write all samples to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := s.complete(*set)
	if err == nil {
		err = s.run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
}

// complete takes from a set what was not given.
func (s *settings) complete(name string) error {
	set, err := bench.SetNamed(name)
	s.Rounds, s.Time, s.Works = cmp.Or(s.Rounds, set.Rounds), cmp.Or(s.Time, set.Time), cmp.Or(s.Works, set.Works)
	if s.Rounds < 1 || s.Time <= 0 {
		err = errors.Join(err, fmt.Errorf("-rounds %d -time %v: nothing would be measured", s.Rounds, s.Time))
	}
	return err
}

func (s settings) run(ctx context.Context) (err error) {
	programs, err := bench.Build(ctx, s.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	works, err := bench.Select(programs.Works, s.Works)
	if err != nil {
		return err
	}
	r := report{Rounds: s.Rounds, Time: s.Time.String(), Proxies: programs.Proxies}
	if r.Environment, err = bench.ReadEnvironment(); err != nil {
		return err
	}
	fmt.Print(r.Environment.Head(r.Proxies))
	for _, work := range works {
		if err := r.measure(ctx, programs, work, s.Time); err != nil {
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
