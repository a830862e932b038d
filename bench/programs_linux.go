package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Options are what a person may choose.
type Options struct {
	Portsplice string // the program to measure; built from this tree if empty
	Reference  string // docker-proxy; looked for on PATH if empty
}

// Programs are what benchmarks run.
type Programs struct {
	Proxies []Proxy // direct first
	dir     string  // for files
	load    string
	adopts  map[string]bool // by path: which proxies know -use-listen-fd
}

// Build makes sure that the benchmarks can run, and builds into dir what they need.
func Build(ctx context.Context, dir string, o Options) (*Programs, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("benchmarks make network namespaces: run them as root")
	}
	if err := raiseDescriptorLimit(); err != nil {
		return nil, err
	}
	const module = "github.com/portsplice/portsplice"
	packages := []string{module + "/bench/load", module + "/bench/goref"}
	if o.Portsplice == "" {
		packages = append(packages, module+"/cmd/portsplice")
		o.Portsplice = filepath.Join(dir, "portsplice")
	}
	// As the Makefile builds what dockerd is to start.
	build := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + "/"},
		packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	p := &Programs{dir: dir, load: filepath.Join(dir, "load"), adopts: map[string]bool{}}
	p.Proxies = append(ours(dir, o), peers()...)
	return p, p.probe(ctx)
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
		{Name: "docker-proxy", Path: o.Reference, Protocols: both, Reference: true},
		{Name: "goref", Path: filepath.Join(dir, "goref"), Protocols: both, Reference: true},
		engine("fallback"),
		engine("splice"),
		{Name: "udp", Path: o.Portsplice, Protocols: []string{udp}},
	}
}

// find gives the path of the first of the programs that is installed, or nothing.
func find(programs ...string) string {
	for _, program := range programs {
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

// raiseDescriptorLimit lets the proxies have what dockerd lets them have, as far as this machine allows it. Go raises
// the limit for its own process alone, and undoes it for those that it starts unless it is set explicitly.
func raiseDescriptorLimit() error {
	const dockerd = 1 << 20 // LimitNOFILE=infinity in docker.service is fs.nr_open, and that is its default
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: dockerd, Max: dockerd}) == nil {
		return nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = limit.Max
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
}
