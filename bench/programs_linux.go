package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// Options are what a person may choose.
type Options struct {
	Portsplice string // the program to measure; built from this tree if empty
	Profile    bool   // builds ours with the tag profile, and with symbols
	Old        string // another portsplice: the two are measured, and nothing else but direct
	Again      bool   // measures ours twice, to know what a difference between two rows means
	Loops      []int  // of further rows of ours
	Rows       string // comma-separated names of the proxies to measure; all if empty
}

func (o *Options) parseLoops(list string) error {
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of loops", word)
		}
		o.Loops = append(o.Loops, n)
	}
	return nil
}

// Programs are what benchmarks run.
type Programs struct {
	Proxies []Proxy // direct first
	Works   []Work
	dir     string   // for files
	load    []string // the command of both ends of the traffic
	tool    tool
}

// withPrograms makes sure that the benchmarks can run, builds what they need, and removes it when f has come to its end.
func withPrograms(ctx context.Context, o Options, f func(*Programs)) {
	p := &Programs{}
	err := failure.Caught(func() {
		p.build(ctx, o)
		f(p)
	})
	failure.Check(errors.Join(err, os.RemoveAll(p.dir)))
}

func (p *Programs) build(ctx context.Context, o Options) {
	if os.Geteuid() != 0 {
		failure.Check(errors.New("benchmarks make network namespaces: run them as root"))
	}
	descriptors := raiseDescriptorLimit()
	p.load = []string{failure.Must(os.Executable()), "load"}
	p.dir = failure.Must(os.MkdirTemp("", "portsplice-bench-"))
	failure.Check(os.Chmod(p.dir, 0o711)) // some servers are not root's
	p.Works = Works(descriptors)
	for i, w := range p.Works {
		if w.Kind == others {
			p.Works[i].Missing = realClients[w.client[0]].missing()
		}
	}
	tree, _ := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output() // without it, this directory is the tree
	root := strings.TrimSpace(string(tree))
	built := filepath.Join(p.dir, "portsplice") // where the shim looks for it
	if o.Portsplice == "" {
		p.compile(ctx, o.Profile)
		o.Portsplice = built
	} else {
		failure.Check(os.Symlink(failure.Must(filepath.Abs(o.Portsplice)), built))
	}
	all := []Proxy{direct, {Name: "old", Path: o.Old, Protocols: both}, {Name: "new", Path: o.Portsplice, Protocols: both}}
	if o.Old == "" {
		all = slices.Concat(ours(o, filepath.Join(root, "bin/tools/docker-proxy")), shims(buildShim(ctx, root, p.dir), o), peers())
	}
	p.Proxies = rows(all, o.Rows)
	for i := range p.Proxies {
		p.Proxies[i].ask(ctx)
		p.Proxies[i].confine(p.Works, descriptors)
	}
}

// compile builds ours as the Makefile builds what dockerd is to start.
func (p *Programs) compile(ctx context.Context, profile bool) {
	revision, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		revision = []byte("unknown")
	}
	linker, tags := "-X main.version="+strings.TrimSpace(string(revision)), "profile"
	if !profile {
		linker, tags = "-s -w "+linker, ""
	}
	const commands = "github.com/portsplice/portsplice/cmd/portsplice"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags="+tags, "-ldflags="+linker, "-o", p.dir+"/",
		commands, commands+"-bypass")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		failure.Fail("%s: %w\n%s", build, err, out)
	}
}

// buildShim builds the shim from the tree. It gives no path where there is no C compiler, or no source.
func buildShim(ctx context.Context, tree, dir string) string {
	shim := filepath.Join(dir, "portsplice-shim")
	if exec.CommandContext(ctx, filepath.Join(tree, "cmd/portsplice-shim/build"), shim).Run() != nil {
		return ""
	}
	return shim
}

var both = []string{tcp, udp}

var direct = Proxy{Name: Direct, Protocols: both, manyPorts: true}

// ours are direct, the references, of which the newest is where the Makefile builds it, and the engines.
func ours(o Options, newest string) []Proxy {
	splice := Proxy{Name: "splice", Path: o.Portsplice, Arguments: []string{"-engine", "splice"}, Protocols: []string{tcp}}
	udp := Proxy{Name: "udp", Path: o.Portsplice, Protocols: []string{udp},
		Arguments: []string{"-max-flows", strconv.Itoa(2 * mostFlows)}}
	all := []Proxy{
		direct,
		{Name: "docker-proxy", Path: find(newest), Protocols: both, Reference: true, descriptors: socketsAndPipes},
		{Name: "docker.io", Path: find("docker-proxy"), Protocols: both, Reference: true, descriptors: socketsAndPipes},
		{Name: "fallback", Path: o.Portsplice, Arguments: []string{"-engine", "fallback"}, Protocols: []string{tcp}},
		splice, udp,
	}
	for _, p := range []Proxy{splice, udp} {
		name := p.Name
		for _, n := range o.Loops {
			p.Name, p.Environment = fmt.Sprintf("%s@%d", name, n), []string{fmt.Sprintf("GOMAXPROCS=%d", n)}
			all = append(all, p)
		}
		if o.Again {
			p.Name, p.Again, p.Environment = name+"-again", name, nil
			all = append(all, p)
		}
	}
	return all
}

// shims are ours as it is installed, with a worker for all ports, and what is compared with one of the rows of ours.
func shims(path string, o Options) []Proxy {
	shim := Proxy{Name: "shim", Path: path, Protocols: both, Shim: true,
		Environment: []string{fmt.Sprintf("PORTSPLICE_MAX_FLOWS=%d", 2*mostFlows)},
		descriptors: 2 * 8.0 / 7} // a worker keeps an eighth for its other ports
	bypass := shim
	bypass.Name, bypass.Bypass, bypass.Protocols = "bypass", true, []string{tcp}
	bypass.Environment = []string{"PORTSPLICE_LOCAL_BYPASS=require"}
	return []Proxy{shim, bypass, {Name: "splice-header", Path: o.Portsplice, Protocols: []string{tcp}, Headers: true,
		Base: "splice", Arguments: []string{"-engine", "splice", "-proxy-protocol", "v2"}}}
}

// rows gives the proxies that a list names.
func rows(all []Proxy, list string) (named []Proxy) {
	if list == "" {
		return all
	}
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(p Proxy) bool { return p.Name == name })
		if i < 0 {
			failure.Fail("no proxy is named %q", name)
		}
		named = append(named, all[i])
	}
	return named
}

// find gives the path of the first of the programs that is installed, or nothing.
func find(programs ...string) string {
	for _, program := range programs {
		if files, _ := filepath.Glob(program); filepath.IsAbs(program) && len(files) > 0 { // the patterns are good
			return files[len(files)-1]
		}
		if path, err := exec.LookPath(program); err == nil {
			return path
		}
	}
	return ""
}

// ask asks a program for its version and, by its usage, whether it can be handed a socket, as from Docker 28 on.
func (p *Proxy) ask(ctx context.Context) {
	if p.Path == "" {
		return
	}
	p.Version = p.version(ctx)
	if p.Peer {
		return
	}
	usage, err := exec.CommandContext(ctx, p.Path, "-h").CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran { // docker-proxy exits with 2
		failure.Fail("proxy %s: %w", p.Name, err)
	}
	p.adopts = strings.Contains(string(usage), "-use-listen-fd")
}

// version is for people: the version that a program tells of itself, its Debian package, and the Go that built it.
func (p *Proxy) version(ctx context.Context) string {
	var known []string
	tells := func(program string, args ...string) string { // what is not found makes an error, and no output
		out, _ := exec.CommandContext(ctx, program, args...).Output()
		return strings.Join(strings.Fields(string(out)), " ")
	}
	if info, err := buildinfo.ReadFile(p.Path); err == nil {
		known = append(known, info.GoVersion)
		if p.Reference {
			known = append(known, info.Main.Version)
		}
	}
	if p.Ours() {
		known = append(known, tells(p.Path, "-version"))
	}
	// Packages have their files by either name where /bin is /usr/bin.
	directory, _ := filepath.EvalSymlinks(filepath.Dir(p.Path))
	owners := tells("dpkg-query", "-S", p.Path, filepath.Join(directory, filepath.Base(p.Path)))
	if name, _, found := strings.Cut(owners, ":"); found {
		known = append(known, tells("dpkg-query", "-W", name))
	}
	return strings.Join(slices.DeleteFunc(known, func(s string) bool { return s == "" }), ", ")
}

// raiseDescriptorLimit lets the proxies have what dockerd lets them have, or what this machine allows. Go raises
// the limit for its own process alone, and undoes it for those that it starts unless it is set explicitly.
func raiseDescriptorLimit() uint64 {
	const dockerd = 1 << 20 // LimitNOFILE=infinity in docker.service is fs.nr_open, and that is its default
	limit := syscall.Rlimit{Cur: dockerd, Max: dockerd}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		failure.Check(os.NewSyscallError("getrlimit", syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)))
		limit.Cur = limit.Max
		failure.Check(os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)))
	}
	return limit.Max
}
