package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/cpuprofile"
)

// passOn are functions that only pass a system call on, whichever it is. Hidden, they leave its time to who asked for
// it: the names of our calls and of the runtime's.
const passOn = `(^|[./])(Raw)?[sS]yscall(NoError|6)?(\.abi0)?$|^runtime\.(entersyscall|exitsyscall)`

// profile puts ours and the reference under the same work, and prints for each what an operation costs and, of ours, which
// functions take most of it.
func profile(ctx context.Context, args []string) {
	fs := flag.NewFlagSet("profile", flag.ExitOnError)
	name := fs.String("work", "pingpong/size=64/conns=64", "name of one work that is traffic")
	out := fs.String("out", "profiles", "directory for what is written")
	d := fs.Duration("time", 3*time.Second, "how long the traffic lasts")
	_ = fs.Parse(args) // it exits
	withPrograms(ctx, Options{Profile: true}, func(p *Programs) {
		works := failure.Must(Select(p.Works, *name))
		if len(works) > 1 || works[0].Kind != traffic {
			failure.Fail("-work %s: one work that is traffic is wanted", *name)
		}
		dir := failure.Must(filepath.Abs(*out))
		failure.Check(os.MkdirAll(dir, 0o755))
		for _, proxy := range p.Proxies {
			if works[0].Fits(proxy) && proxy.Absence(works[0]) == "" && slices.Contains([]string{"docker-proxy", "splice", "udp"}, proxy.Name) {
				p.profile(ctx, works[0], proxy, *d, filepath.Join(dir, proxy.Name))
			}
		}
	})
}

// profile writes file.pprof of ours and, where perf works, file.perf with the kernel's stacks.
func (p *Programs) profile(ctx context.Context, w Work, proxy Proxy, d time.Duration, file string) {
	p.tool = tool{environment: []string{cpuprofile.Variable + "=" + file + ".pprof"}}
	fmt.Printf("\n%s, %s:%s\n", proxy.Name, w.Name, failure.Must(p.Measure(ctx, w, proxy, d)))
	if proxy.Ours() {
		top := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=20", "-hide="+passOn, file+".pprof")
		top.Stdout, top.Stderr = os.Stdout, os.Stderr
		if err := top.Run(); err != nil {
			failure.Fail("%s: %w", top, err)
		}
	}
	perf, err := exec.LookPath("perf")
	if err != nil {
		fmt.Printf("no recording of %s by perf: %v\n", proxy.Name, err)
		return
	}
	p.tool = tool{command: []string{perf, "record", "-q", "-g", "-o", file + ".perf", "-p"}}
	failure.Must(p.Measure(ctx, w, proxy, d))
}
