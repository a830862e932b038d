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
)

// Options are what a person may choose.
type Options struct {
	Portsplice string // the program to measure; built from this tree if empty
	Reference  string // docker-proxy; looked for on PATH if empty
	Profile    bool   // builds ours and goref with the tag profile, and with symbols
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
	dir     string          // for files
	load    []string        // the command of both ends of the traffic
	adopts  map[string]bool // by path: which proxies know -use-listen-fd
}

// Build makes sure that the benchmarks can run, and builds what they need. Close removes it.
func Build(ctx context.Context, o Options) (*Programs, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("benchmarks make network namespaces: run them as root")
	}
	descriptors, err := raiseDescriptorLimit()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "portsplice-bench-")
	if err != nil {
		return nil, err
	}
	p := &Programs{dir: dir, Works: Works(descriptors), load: []string{self, "load"}, adopts: map[string]bool{}}
	for i, w := range p.Works {
		if w.Kind == others {
			p.Works[i].Missing = realClients[w.client[0]].missing()
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o711), p.build(ctx, o)); err != nil { // some servers are not root's
		return nil, errors.Join(err, p.Close())
	}
	for i := range p.Proxies {
		p.Proxies[i].confine(p.Works, descriptors)
	}
	return p, nil
}

// Close removes what was built.
func (p *Programs) Close() error { return os.RemoveAll(p.dir) }

func (p *Programs) build(ctx context.Context, o Options) error {
	const module = "github.com/portsplice/portsplice"
	packages := []string{module + "/bench/goref"}
	if o.Portsplice == "" {
		packages = append(packages, module+"/cmd/portsplice", module+"/cmd/portsplice-bypass")
		o.Portsplice = filepath.Join(p.dir, "portsplice")
	} else if err := linkProgram(o.Portsplice, p.dir); err != nil {
		return err
	}
	revision, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		revision = []byte("unknown")
	}
	// As the Makefile builds what dockerd is to start.
	linker, tags := "-X main.version="+strings.TrimSpace(string(revision)), "profile"
	if !o.Profile {
		linker, tags = "-s -w "+linker, ""
	}
	flags := []string{"build", "-trimpath", "-tags=" + tags, "-ldflags=" + linker, "-o", p.dir + "/"}
	build := exec.CommandContext(ctx, "go", append(flags, packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	if o.Old == "" {
		shim := Proxy{Name: "shim", Path: buildShim(ctx, p.dir), Protocols: []string{tcp, udp}, Shim: true,
			Environment: []string{fmt.Sprintf("PORTSPLICE_MAX_FLOWS=%d", 2*mostFlows)},
			descriptors: 2 * 8.0 / 7} // a worker keeps an eighth for its other ports
		bypass := shim
		bypass.Name, bypass.Bypass, bypass.Protocols = "bypass", true, []string{tcp}
		bypass.Environment = []string{"PORTSPLICE_LOCAL_BYPASS=require"}
		headers := Proxy{Name: "splice-header", Path: o.Portsplice, Protocols: []string{tcp}, Headers: true, Base: "splice",
			Arguments: []string{"-engine", "splice", "-proxy-protocol", "v2"}}
		p.Proxies = slices.Concat(ours(p.dir, o), []Proxy{shim, bypass, headers}, peers())
	} else {
		both := []string{tcp, udp}
		p.Proxies = []Proxy{{Name: Direct, Protocols: both, manyPorts: true}, {Name: "old", Path: o.Old, Protocols: both},
			{Name: "new", Path: o.Portsplice, Protocols: both}}
	}
	if p.Proxies, err = rows(p.Proxies, o.Rows); err != nil {
		return err
	}
	for i := range p.Proxies {
		if err := p.ask(ctx, &p.Proxies[i]); err != nil {
			return err
		}
	}
	return nil
}

// linkProgram puts a program where the shim looks for it.
func linkProgram(path, dir string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return os.Symlink(path, filepath.Join(dir, "portsplice"))
}

// buildShim builds the shim. It gives no path where there is no C compiler, or no source.
func buildShim(ctx context.Context, dir string) string {
	tree, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return ""
	}
	shim := filepath.Join(dir, "portsplice-shim")
	build := filepath.Join(strings.TrimSpace(string(tree)), "cmd/portsplice-shim/build")
	if exec.CommandContext(ctx, build, shim).Run() != nil {
		return ""
	}
	return shim
}

// ours are direct, the references and the engines.
func ours(dir string, o Options) []Proxy {
	if o.Reference == "" {
		o.Reference = find("docker-proxy")
	}
	both := []string{tcp, udp}
	splice := Proxy{Name: "splice", Path: o.Portsplice, Arguments: []string{"-engine", "splice"}, Protocols: []string{tcp}}
	udp := Proxy{Name: "udp", Path: o.Portsplice, Protocols: []string{udp}, Arguments: []string{"-max-flows", strconv.Itoa(2 * mostFlows)}}
	all := []Proxy{
		{Name: Direct, Protocols: both, manyPorts: true},
		{Name: "docker-proxy", Path: o.Reference, Protocols: both, Reference: true, descriptors: socketsAndPipes},
		{Name: "goref", Path: filepath.Join(dir, "goref"), Protocols: both, Reference: true, descriptors: socketsAndPipes},
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

// rows gives the proxies that a list names.
func rows(all []Proxy, list string) ([]Proxy, error) {
	if list == "" {
		return all, nil
	}
	var named []Proxy
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(p Proxy) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no proxy is named %q", name)
		}
		named = append(named, all[i])
	}
	return named, nil
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

// ask asks a program for its version and, by its usage, whether it can be handed a socket, as from Docker 28 on, and
// serves several ports.
func (p *Programs) ask(ctx context.Context, proxy *Proxy) error {
	proxy.Version = version(ctx, *proxy)
	if proxy.Path == "" || proxy.Peer {
		return nil
	}
	usage, err := exec.CommandContext(ctx, proxy.Path, "-h").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // docker-proxy exits with 2
		return fmt.Errorf("proxy %s: %w", proxy.Name, err)
	}
	p.adopts[proxy.Path] = strings.Contains(string(usage), "-use-listen-fd")
	if strings.Contains(string(usage), "  -ports ") {
		proxy.manyPorts = true
	}
	return nil
}

// version is for people: the version that a program tells of itself, its Debian package, and the Go that built it.
func version(ctx context.Context, p Proxy) string {
	if p.Path == "" {
		return ""
	}
	var known []string
	if info, err := buildinfo.ReadFile(p.Path); err == nil {
		known = append(known, info.GoVersion)
	}
	if p.Ours() {
		if out, err := exec.CommandContext(ctx, p.Path, "-version").Output(); err == nil {
			known = append(known, strings.TrimSpace(string(out)))
		}
	}
	// Packages have their files by either name where /bin is /usr/bin. What is not found makes an error, and no output.
	directory, _ := filepath.EvalSymlinks(filepath.Dir(p.Path))
	owners, _ := exec.CommandContext(ctx, "dpkg-query", "-S", p.Path, filepath.Join(directory, filepath.Base(p.Path))).Output()
	if name, _, found := strings.Cut(string(owners), ":"); found {
		if out, err := exec.CommandContext(ctx, "dpkg-query", "-W", name).Output(); err == nil {
			known = append(known, strings.Join(strings.Fields(string(out)), " "))
		}
	}
	return strings.Join(known, ", ")
}

// raiseDescriptorLimit lets the proxies have what dockerd lets them have, or what this machine allows. Go raises
// the limit for its own process alone, and undoes it for those that it starts unless it is set explicitly.
func raiseDescriptorLimit() (uint64, error) {
	const dockerd = 1 << 20 // LimitNOFILE=infinity in docker.service is fs.nr_open, and that is its default
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: dockerd, Max: dockerd}) == nil {
		return dockerd, nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = limit.Max
	return limit.Max, os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
}
