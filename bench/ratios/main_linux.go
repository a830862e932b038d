package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/portsplice/portsplice/bench"
)

// settings are the flags.
type settings struct {
	bench.Options
	bench.Set
	out    string
	strict bool
}

func main() {
	var s settings
	set := flag.String("set", "full", "quick or full: what the next three are if they are not given")
	flag.IntVar(&s.Rounds, "rounds", 0, "rounds that count; one more comes before and is dropped")
	flag.DurationVar(&s.Time, "time", 0, "how long traffic is measured in a round")
	flag.StringVar(&s.Works, "work", "", "comma-separated names such as pingpong or bulk/direction=up")
	flag.StringVar(&s.Portsplice, "proxy", "", "the portsplice to measure (default: built from this tree)")
	flag.StringVar(&s.Reference, "reference", "", "the docker-proxy to compare with (default: from PATH)")
	flag.StringVar(&s.out, "out", "", "also write tables, JSON and the raw output for benchstat to this directory")
	flag.BoolVar(&s.strict, "strict", false, "fail if anything that can be measured is not installed")
	flag.Parse()
	bench.Main("ratios", func(ctx context.Context) error {
		if err := s.complete(*set); err != nil {
			return err
		}
		return s.run(ctx)
	})
}

// complete takes from a set what was not given.
func (s *settings) complete(name string) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: works are named by -work", flag.Arg(0))
	}
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
	r := bench.Report{Rounds: s.Rounds, Time: s.Time.String(), Proxies: programs.Proxies}
	if r.Environment, err = bench.ReadEnvironment(); err != nil {
		return err
	}
	fmt.Print(r.Environment.Head(r.Proxies))
	var failures []string
	for _, work := range works {
		result, err := programs.Rounds(ctx, work, s.Set)
		if err != nil {
			return err
		}
		fmt.Print(result)
		failures = append(failures, result.Failures()...)
		if s.strict {
			failures = append(failures, result.Missing()...)
		}
		if err := s.keep(&r, result); err != nil {
			return err
		}
	}
	fmt.Print(r.Environment.Foot(s.Rounds))
	if len(failures) > 0 {
		return fmt.Errorf("no figures of\n%s", strings.Join(failures, "\n"))
	}
	return nil
}

// keep adds a result to the report, and writes it: an hour of work is not lost to what comes after.
func (s settings) keep(r *bench.Report, result bench.Result) (err error) {
	r.Works = append(r.Works, result.Work)
	r.Samples = append(r.Samples, result.Samples...)
	r.Environment.Noise = max(r.Environment.Noise, result.Noise())
	if r.Environment.LoadAfter, err = bench.LoadAverage(); err != nil || s.out == "" {
		return err
	}
	return r.Write(s.out)
}
