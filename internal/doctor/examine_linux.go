package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/install"
	"github.com/portsplice/portsplice/internal/processes"
	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

// patience bounds each question to a dockerd.
const patience = 5 * time.Second

// inexact is by how much a process's start and a file's change may seem to be in another order than they were: the kernel
// tells the one to a hundredth of a second, and the other by a clock that ticks as often.
const inexact = 100 * time.Millisecond

// Examine looks at this host. The version is that of this program.
func Examine(ctx context.Context, version string) []Finding {
	f := Facts{Version: version}
	unseen := func(what string, err error) {
		if err != nil {
			f.Unseen = append(f.Unseen, fmt.Errorf("%s: %w", what, err))
		}
	}
	daemons, err := install.Daemons()
	unseen("dockerd", err)
	for _, d := range daemons {
		f.Daemons = append(f.Daemons, look(ctx, d))
	}
	unseen("ports", f.lookAtPorts())
	f.Features = features(ctx, version, f.Daemons)
	f.Limits = limits()
	f.Limits.RootWorkers = os.Geteuid() == 0 && !slices.ContainsFunc(f.Workers, func(w Worker) bool { return w.User != 0 }) &&
		!slices.ContainsFunc(daemons, func(d install.Daemon) bool { return d.Rootless })
	return Judge(f)
}

// look finds out what a dockerd starts. One of 29.5 and later says it; of others it follows from what they were started
// with.
func look(ctx context.Context, d install.Daemon) Daemon {
	found := Daemon{PID: d.PID, Rootless: d.Rootless}
	process := processes.Process{PID: d.PID}
	if open, limit, err := process.Descriptors(); err == nil {
		found.Descriptors = Descriptors{uint64(open), limit.Max}
	}
	variable := func(name string) string { value, _ := process.Variable(name); return value }
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	var says struct {
		ServerVersion   string
		FirewallBackend struct{ Info [][2]string }
	}
	if ask(ctx, d.Socket(variable), "/info", &says) == nil {
		found.Version = says.ServerVersion
	}
	choice, err := d.Proxy(found.Version, variable)
	found.Off, found.Proxy, found.From, found.Missing = choice.Off, choice.Path, choice.From, err
	if started, err := process.Started(); err == nil {
		for _, file := range choice.Files {
			if changed, there := changed(file); there && changed.After(started.Add(inexact)) {
				found.Stale = file
			}
		}
	}
	for _, pair := range says.FirewallBackend.Info {
		if pair[0] == "UserlandProxyPath" {
			if found.Stale = ""; pair[1] != found.Proxy {
				found.Stale = choice.Files[len(choice.Files)-1]
			}
			found.Proxy, found.From, found.Missing = pair[1], "docker info", nil
		}
	}
	if found.Missing == nil && found.Proxy != "" {
		_, found.Missing = exec.LookPath(found.Proxy)
	}
	target, err := filepath.EvalSymlinks(found.Proxy)
	found.Ours = err == nil && install.Ours(target)
	return found
}

// changed is when a file was last written, or the link to it made.
func changed(file string) (time.Time, bool) {
	info, err := os.Lstat(file)
	if err != nil {
		return time.Time{}, false
	}
	stat, is := info.Sys().(*syscall.Stat_t)
	return time.Unix(stat.Ctim.Unix()), is
}

// ask asks dockerd's API.
func ask(ctx context.Context, socket, path string, answer any) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	err = json.NewDecoder(response.Body).Decode(answer)
	return errors.Join(err, response.Body.Close())
}

// lookAtPorts finds the processes that serve ports, and the workers. Workers are asked last, so that a port which they do not know is
// one that has a process longer than that.
func (f *Facts) lookAtPorts() error {
	all, err := processes.All()
	if err != nil {
		return err
	}
	type shim struct {
		processes.Process
		at int
	}
	var shims []shim
	for _, p := range all {
		name := published(p.Args)
		if name == "" || !p.Shares("pid") {
			continue
		}
		exe, replaced := p.Exe()
		port := Port{PID: p.PID, Name: name, By: filepath.Base(exe), Replaced: replaced}
		switch port.By {
		case install.Program:
			port.By = Alone
			port.Why, _ = p.Variable("PORTSPLICE_NO_WORKER")
		case install.Shim:
			if port.By = ByWorker; p.Shares("net") || os.Geteuid() == 0 { // only root may ask in other network namespaces
				shims = append(shims, shim{p, len(f.Ports)})
			}
		case ".", "rootlesskit-docker-proxy": // nobody's that may be seen; one that has another start the proxy
			continue
		}
		f.Ports = append(f.Ports, port)
	}
	lists, err := workers.Ask[worker.List]("list")
	known := map[int]bool{}
	for _, answer := range lists {
		list := answer.Told
		w := Worker{PID: list.Worker, User: processes.Process{PID: list.Worker}.User()}
		open, limit, failed := processes.Process{PID: list.Worker}.Descriptors()
		if failed == nil {
			w.Descriptors = Descriptors{uint64(open), limit.Cur}
			f.Workers = append(f.Workers, w)
		}
		if !slices.Contains(f.Versions, list.Program) {
			f.Versions = append(f.Versions, list.Program)
		}
		for _, p := range list.Ports {
			known[p.Shim] = true
		}
	}
	for _, s := range slices.Backward(shims) {
		switch {
		case known[s.PID]:
		case !s.Alive():
			f.Ports = slices.Delete(f.Ports, s.at, s.at+1)
		default:
			f.Ports[s.at].By = Unserved
		}
	}
	return err
}

// published is the port that a proxy's command line names; empty if it is no proxy's.
func published(args []string) string {
	value := map[string]string{"-proto": "tcp"}
	for i := 1; i+1 < len(args); i++ {
		switch args[i] {
		case "-proto", "-host-ip", "-host-port", "-container-ip", "-container-port":
			value[args[i]] = args[i+1]
		}
	}
	if value["-host-port"] == "" || value["-container-ip"] == "" {
		return ""
	}
	return net.JoinHostPort(value["-host-ip"], value["-host-port"]) + "/" + value["-proto"]
}

func limits() (l Limits) {
	if f := sysctl("net/ipv4/ip_local_port_range"); len(f) == 2 && f[1] >= f[0] {
		l.Ports = f[1] - f[0] + 1
	}
	if f := sysctl("net/core/somaxconn"); len(f) == 1 {
		l.SoMaxConn = f[0]
	}
	if f := sysctl("fs/pipe-user-pages-soft"); len(f) == 1 {
		l.PipePages, l.PipesSet = f[0], true
	}
	return l
}

// sysctl gives the numbers of a setting; none if it cannot be read.
func sysctl(name string) (numbers []uint64) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for word := range strings.FieldsSeq(string(text)) {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return nil
		}
		numbers = append(numbers, n)
	}
	return numbers
}
