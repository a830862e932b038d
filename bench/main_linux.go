package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/load"
)

// commands by name. The last is what this program starts as processes of their own: both ends of the traffic.
var commands = map[string]func(context.Context, []string){
	"ratios": ratios, "compare": compare, "report": report, "profile": profile, "sctp": sctp,
	"load": func(_ context.Context, args []string) { failure.Check(load.Run(args)) },
}

// ratios measures the proxies in rounds that alternate, and prints and keeps what they gave.
func ratios(ctx context.Context, args []string) {
	var o Options
	var s Set
	fs := flag.NewFlagSet("ratios", flag.ExitOnError)
	s.declare(fs, Set{Rounds: 6, Time: 600 * time.Millisecond})
	fs.StringVar(&o.Portsplice, "proxy", "", "the portsplice to measure (default: built from this tree)")
	fs.Func("loops", "comma-separated numbers: further rows of ours with as many loops", o.parseLoops)
	fs.StringVar(&o.Rows, "rows", "", "comma-separated names of the proxies to measure (default: all)")
	out := fs.String("out", "", "also write the results, and the raw output for benchstat, to this directory: \"bench report\" makes a page of them")
	strict := fs.Bool("strict", false, "fail if anything that can be measured is not installed")
	_ = fs.Parse(args) // it exits
	if fs.NArg() > 0 {
		failure.Fail("%q: works are named by -work", fs.Arg(0))
	}
	o.Again = s.Rounds > 1 // one round says nothing about noise
	var failures []string
	r := measure(ctx, o, s, func(r Report, result Result) {
		fmt.Print(result)
		failures = append(failures, result.Failures()...)
		if *strict {
			failures = append(failures, result.Missing()...)
		}
		if *out != "" {
			r.Write(*out) // an hour of work is not lost to what comes after
		}
	})
	fmt.Print(r.Environment.Foot(s.Rounds))
	wantNone(failures)
}

// wantNone fails if there are failures of works.
func wantNone(failures []string) {
	if len(failures) > 0 {
		failure.Fail("no figures of\n%s", strings.Join(failures, "\n"))
	}
}

// declare declares the flags of a set with what they are if they are not given.
func (s *Set) declare(fs *flag.FlagSet, otherwise Set) {
	fs.IntVar(&s.Rounds, "rounds", otherwise.Rounds, "rounds that count; one more comes before and is dropped")
	fs.DurationVar(&s.Time, "time", otherwise.Time, "how long traffic is measured in a round")
	fs.StringVar(&s.Works, "work", otherwise.Works, "comma-separated names such as pingpong or bulk/direction=up")
}

// measure builds what is to be measured, prints the head of the report, and has each result looked at when it is there.
func measure(ctx context.Context, o Options, s Set, each func(Report, Result)) (r Report) {
	if s.Rounds < 1 || s.Time <= 0 {
		failure.Fail("-rounds %d -time %v: nothing would be measured", s.Rounds, s.Time)
	}
	withPrograms(ctx, o, func(p *Programs) {
		works := failure.Must(Select(p.Works, s.Works))
		r = Report{Environment: ReadEnvironment(), Rounds: s.Rounds, Time: s.Time.String(), Proxies: p.Proxies}
		r.Environment.TCP = usedCongestionControl()
		fmt.Print(r.Environment.Head(r.Proxies))
		for _, work := range works {
			result := Rounds(ctx, s, work, p.Proxies, p.Measure)
			r.add(result)
			each(r, result)
		}
	})
	return r
}

// compare hands the rounds of two builds of ours to benchstat.
func compare(ctx context.Context, args []string) {
	var s Set
	fs := flag.NewFlagSet("compare", flag.ExitOnError)
	s.declare(fs, Set{Rounds: 10, Time: 500 * time.Millisecond, // benchstat wants six rounds or more
		Works: "pingpong/size=64/conns=64,crr,bulk/direction=down/conns=8"})
	_ = fs.Parse(args) // it exits
	if fs.NArg() != 2 {
		failure.Fail("usage: bench compare [flags] OLD NEW")
	}
	benchstat, err := exec.LookPath("benchstat")
	if err != nil {
		failure.Fail("%w: make compare installs it", err)
	}
	r := measure(ctx, Options{Old: fs.Arg(0), Portsplice: fs.Arg(1)}, s, func(_ Report, result Result) {
		bad := result.Failures()
		for _, p := range result.Proxies {
			if why := p.Absence(result.Work); why != "" && result.Work.Fits(p) {
				bad = append(bad, fmt.Sprintf("%s, proxy %s (%s): %s", result.Work.Name, p.Name, p.Path, why))
			}
		}
		wantNone(bad)
	})
	pivot := exec.CommandContext(ctx, benchstat, "-col", "/proxy@(old new direct)", "/dev/stdin")
	pivot.Stdin, pivot.Stdout, pivot.Stderr = strings.NewReader(r.Raw()), os.Stdout, os.Stderr
	failure.Check(pivot.Run())
}
