package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
}

// Programs are what benchmarks run.
type Programs struct {
	Proxies []Proxy // direct first
	Works   []Work
	dir     string // for files
	load    string
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
	dir, err := os.MkdirTemp("", "portsplice-bench-")
	if err != nil {
		return nil, err
	}
	p := &Programs{dir: dir, Works: Works(descriptors)}
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
	packages := []string{module + "/bench/load", module + "/bench/goref"}
	if o.Portsplice == "" {
		packages = append(packages, module+"/cmd/portsplice")
		o.Portsplice = filepath.Join(p.dir, "portsplice")
	}
	// As the Makefile builds what dockerd is to start.
	linker := "-X main.version=" + revision(ctx)
	tags := "profile"
	if !o.Profile {
		linker, tags = "-s -w "+linker, ""
	}
	flags := []string{"build", "-trimpath", "-tags=" + tags, "-ldflags=" + linker, "-o", p.dir + "/"}
	build := exec.CommandContext(ctx, "go", append(flags, packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	p.load, p.adopts = filepath.Join(p.dir, "load"), map[string]bool{}
	p.Proxies = builds(o)
	if o.Old == "" {
		p.Proxies = append(ours(p.dir, o), peers()...)
	}
	for i, proxy := range p.Proxies {
		p.Proxies[i].Version = version(ctx, proxy)
	}
	return p.probe(ctx)
}

// revision is the version of this tree.
func revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// ours are direct, the references and the engines.
func ours(dir string, o Options) []Proxy {
	if o.Reference == "" {
		o.Reference = find("docker-proxy")
	}
	both := []string{tcp, udp}
	engine := func(name string) Proxy {
		return Proxy{Name: name, Path: o.Portsplice, Arguments: []string{"-engine", name}, Protocols: []string{tcp}}
	}
	return []Proxy{
		{Name: Direct, Protocols: both},
		{Name: "docker-proxy", Path: o.Reference, Protocols: both, Reference: true, descriptors: socketsAndPipes},
		{Name: "goref", Path: filepath.Join(dir, "goref"), Protocols: both, Reference: true, descriptors: socketsAndPipes},
		engine("fallback"),
		engine("splice"),
		{Name: "udp", Path: o.Portsplice, Protocols: []string{udp}, Arguments: []string{"-max-flows", strconv.Itoa(2 * manyFlows)}},
	}
}

// builds are direct and two builds of ours.
func builds(o Options) []Proxy {
	both := []string{tcp, udp}
	return []Proxy{
		{Name: Direct, Protocols: both},
		{Name: "old", Path: o.Old, Protocols: both},
		{Name: "new", Path: o.Portsplice, Protocols: both},
	}
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

// probe asks the proxies whether they can be handed a socket, as from Docker 28 on. Their usage tells.
func (p *Programs) probe(ctx context.Context) error {
	for _, proxy := range p.Proxies {
		if proxy.Path == "" || proxy.Peer {
			continue
		}
		usage, err := exec.CommandContext(ctx, proxy.Path, "-h").CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) { // docker-proxy exits with 2
			return fmt.Errorf("proxy %s: %w", proxy.Name, err)
		}
		p.adopts[proxy.Path] = strings.Contains(string(usage), "-use-listen-fd")
	}
	return nil
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
