package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/portsplice/portsplice/internal/cpuprofile"
)

// passOn are functions that only pass a system call on, whichever it is. Hidden, they leave its time to who asked for
// it: the names of our calls and of the runtime's.
const passOn = `(^|[./])(Raw)?[sS]yscall(NoError|6)?(\.abi0)?$|^runtime\.(entersyscall|exitsyscall)`

// profile has ours and the reference's algorithm profile themselves under the same work, and prints for each what an
// operation costs and which functions take most of it.
func profile(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("profile", flag.ExitOnError)
	name := fs.String("work", "pingpong/size=64/conns=64", "name of one work that is traffic")
	out := fs.String("out", "profiles", "directory for what is written")
	d := fs.Duration("time", 3*time.Second, "how long the traffic lasts")
	_ = fs.Parse(args) // it exits
	programs, err := Build(ctx, Options{Profile: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	works, err := Select(programs.Works, *name)
	if err == nil && (len(works) > 1 || !works[0].Traffic()) {
		err = fmt.Errorf("-work %s: one work that is traffic is wanted", *name)
	}
	if err == nil {
		*out, err = filepath.Abs(*out)
	}
	if err == nil {
		err = os.MkdirAll(*out, 0o755)
	}
	if err != nil {
		return err
	}
	for _, proxy := range programs.Proxies {
		if !works[0].Fits(proxy) || !slices.Contains([]string{"goref", "splice", "udp"}, proxy.Name) {
			continue
		}
		file := filepath.Join(*out, proxy.Name)
		if err := programs.profile(ctx, works[0], proxy, *d, file); err != nil {
			return err
		}
	}
	return nil
}

// profile writes file.pprof and, where perf works, file.perf with the kernel's stacks.
func (p *Programs) profile(ctx context.Context, w Work, proxy Proxy, d time.Duration, file string) error {
	self := Tool{Environment: []string{cpuprofile.Variable + "=" + file + ".pprof"}}
	v, err := p.MeasureWith(ctx, self, w, proxy, d)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s, %s:%s\n", proxy.Name, w.Name, v)
	top := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=20", "-hide="+passOn, file+".pprof")
	top.Stdout, top.Stderr = os.Stdout, os.Stderr
	if err := top.Run(); err != nil {
		return fmt.Errorf("%s: %w", top, err)
	}
	perf, err := exec.LookPath("perf")
	if err != nil {
		fmt.Printf("no recording of %s by perf: %v\n", proxy.Name, err)
		return nil
	}
	_, err = p.MeasureWith(ctx, Tool{Command: []string{perf, "record", "-q", "-g", "-o", file + ".perf", "-p"}}, w, proxy, d)
	return err
}
