package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/portsplice/portsplice/bench"
)

// settings are the flags.
type settings struct {
	bench.Set
	old, new string // the builds
}

func main() {
	var s settings
	flag.IntVar(&s.Rounds, "rounds", 10, "rounds that count; benchstat wants six or more")
	flag.DurationVar(&s.Time, "time", 500*time.Millisecond, "how long traffic is measured in a round")
	flag.StringVar(&s.Works, "work", "pingpong/size=64/conns=64,crr,bulk/direction=down/conns=8",
		"comma-separated names such as pingpong or bulk/direction=up")
	flag.Parse()
	s.old, s.new = flag.Arg(0), flag.Arg(1)
	bench.Main("compare", s.run)
}

func (s settings) run(ctx context.Context) (err error) {
	if s.old == "" || s.new == "" {
		return errors.New("usage: compare [flags] OLD NEW")
	}
	benchstat, err := exec.LookPath("benchstat")
	if err != nil {
		return fmt.Errorf("%w: make compare installs it", err)
	}
	programs, err := bench.Build(ctx, bench.Options{Portsplice: s.new, Old: s.old})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	works, err := bench.Select(programs.Works, s.Works)
	if err != nil {
		return err
	}
	r := bench.Report{Works: works}
	if r.Environment, err = bench.ReadEnvironment(); err != nil {
		return err
	}
	fmt.Print(r.Environment.Head(programs.Proxies))
	for _, work := range works {
		result, err := programs.Rounds(ctx, work, s.Set)
		if err != nil {
			return err
		}
		if failures := result.Failures(); len(failures) > 0 {
			return errors.New(strings.Join(failures, "\n"))
		}
		r.Samples = append(r.Samples, result.Samples...)
	}
	pivot := exec.CommandContext(ctx, benchstat, "-col", "/proxy@(old new direct)", "/dev/stdin")
	pivot.Stdin, pivot.Stdout, pivot.Stderr = strings.NewReader(r.Raw()), os.Stdout, os.Stderr
	return pivot.Run()
}
