package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/portsplice/portsplice/bench"
	"github.com/portsplice/portsplice/internal/cpuprofile"
)

// settings are the flags.
type settings struct {
	work, out string
	time      time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.work, "work", "pingpong/size=64/conns=64", "name of one work that is traffic")
	flag.StringVar(&s.out, "out", "profiles", "directory for what is written")
	flag.DurationVar(&s.time, "time", 3*time.Second, "how long the traffic lasts")
	flag.Parse()
	bench.Main("profile", s.run)
}

func (s settings) run(ctx context.Context) (err error) {
	programs, err := bench.Build(ctx, bench.Options{Profile: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	works, err := bench.Select(programs.Works, s.work)
	if err != nil {
		return err
	}
	if len(works) > 1 || !works[0].Traffic() {
		return fmt.Errorf("-work %s: one work that is traffic is wanted", s.work)
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	var columns []breakdown
	for _, proxy := range programs.Proxies {
		if !works[0].Fits(proxy) || proxy.Name != "splice" && proxy.Name != "udp" && proxy.Name != "goref" {
			continue
		}
		column, err := s.profile(ctx, programs, works[0], proxy)
		if err != nil {
			return err
		}
		columns = append(columns, column)
		if err := s.perf(ctx, programs, works[0], proxy); err != nil {
			return err
		}
	}
	fmt.Print(table(works[0].Name, columns))
	return nil
}

// profile has the proxy profile itself.
func (s settings) profile(ctx context.Context, programs *bench.Programs, w bench.Work, proxy bench.Proxy) (
	b breakdown, err error) {
	path, err := filepath.Abs(filepath.Join(s.out, proxy.Name+".pprof"))
	if err != nil {
		return b, err
	}
	tool := bench.Tool{Environment: []string{cpuprofile.Variable + "=" + path}}
	v, err := programs.MeasureWith(ctx, tool, w, proxy, s.time)
	if err != nil {
		return b, err
	}
	file, err := os.Open(path)
	if err != nil {
		return b, err
	}
	p, err := profile.Parse(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return b, fmt.Errorf("%s: %w", path, err)
	}
	svg := flameGraph(proxy.Name+", "+w.Name, p)
	return newBreakdown(proxy.Name, p, v), os.WriteFile(strings.TrimSuffix(path, "pprof")+"svg", []byte(svg), 0o644)
}

// perf records the proxy with the kernel's stacks, and lists the functions that take most.
func (s settings) perf(ctx context.Context, programs *bench.Programs, w bench.Work, proxy bench.Proxy) error {
	path, err := exec.LookPath("perf")
	if err != nil {
		fmt.Printf("no recording of %s by perf: %v\n", proxy.Name, err)
		return nil
	}
	data := filepath.Join(s.out, proxy.Name+".perf")
	tool := bench.Tool{Command: []string{path, "record", "-q", "-g", "-o", data, "-p"}}
	if _, err := programs.MeasureWith(ctx, tool, w, proxy, s.time); err != nil {
		return err
	}
	report := exec.CommandContext(ctx, path, "report", "-i", data, "--no-children", "-g", "none", "--percent-limit", "1",
		"--sort", "dso,symbol", "--stdio")
	out, err := report.Output()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		fmt.Printf("no recording of %s by perf: %s: %v\n", proxy.Name, report, err) // perf has no rights here
		return nil
	}
	return os.WriteFile(filepath.Join(s.out, proxy.Name+".perf.txt"), out, 0o644)
}
