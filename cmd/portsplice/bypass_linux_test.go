package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
)

// bypassing has a port served whose local clients are to be bypassed, on the address of a port that has gone or a new
// one.
func (l *lab) bypassing(t *testing.T, frontend, backend netip.AddrPort) *process {
	t.Helper()
	return l.run(run{args: arguments("tcp", frontend, backend, "-local-bypass", "require")}).serve(t)
}

// bypassers are the processes that workers have started for it.
func (l *lab) bypassers(t *testing.T) []int {
	t.Helper()
	return l.processes(t, "portsplice-bypass", "1.2.3")
}

// bypasser is the process, another than that one.
func (l *lab) bypasser(t *testing.T, before int) (pid int) {
	t.Helper()
	until(t, "the bypass has a process", func() bool {
		pids := l.bypassers(t)
		if len(pids) != 1 || pids[0] == before {
			return false
		}
		pid = pids[0]
		return true
	})
	return pid
}

// listed is what the worker tells of a port. It knows it a moment after the shim does.
func (l *lab) listed(t *testing.T, frontend netip.AddrPort) worker.Port {
	t.Helper()
	return l.asked(t, "metrics", frontend)
}

// asked is what a worker answers of the port to "list" or "metrics".
func (l *lab) asked(t *testing.T, question string, frontend netip.AddrPort) (found worker.Port) {
	t.Helper()
	until(t, "the port is listed", func() bool {
		lists, _ := worker.Ask[worker.List](question) // whatever workers of other tests say
		for _, list := range lists {
			for _, p := range list.Ports {
				if p.Frontend == frontend.String() {
					found = p
				}
			}
		}
		return found.Frontend != ""
	})
	return found
}

// TestLocalBypass: a local client reaches the backend, and the proxy counts it and sees nothing of it. When the port
// has gone nobody is where it was.
func TestLocalBypass(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	for round := range uint64(3) { // each with a backend of its own
		p := l.bypassing(t, frontend, namedBackend(t, round))
		for range 2 {
			conn := dial(t, "tcp", frontend)
			if got := name(t, conn); got != round {
				t.Errorf("backend %d was reached, want %d", got, round)
			}
			if got := conn.RemoteAddr().String(); got != frontend.String() {
				t.Errorf("the client is told that it has reached %s, want %v", got, frontend)
			}
		}
		if c := p.counters(t); c["bypassed"] != "2" || c["accepted"] != "0" {
			t.Errorf("%s bypassed and %s accepted, want 2 and 0", c["bypassed"], c["accepted"])
		}
		if port := l.listed(t, frontend); port.Bypass != "on" || port.Counters["bypassed"] != 2 {
			t.Errorf("the worker tells %q and %d, want on and 2", port.Bypass, port.Counters["bypassed"])
		}
		p.signalled(t, syscall.SIGINT)
		if conn, err := net.Dial("tcp", frontend.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the port's end: %v, %v; want ECONNREFUSED", conn, err)
		}
	}
}

// TestLocalBypassOff: it is off unless somebody has asked for it, and UDP has none.
func TestLocalBypassOff(t *testing.T) {
	l := newLab(t)
	p, frontend := l.publish(t, "tcp", echo(t, "tcp", ours()))
	exchange(t, dial(t, "tcp", frontend), "hello")
	c, port := p.counters(t), l.listed(t, frontend)
	if c["accepted"] != "1" || c["bypassed"] != "" || port.Bypass != "off" {
		t.Errorf("the counters are %v, and the worker tells %q; want 1 accepted and off", c, port.Bypass)
	}
	udp := freePort(t, "udp", ours())
	l.run(run{args: arguments("udp", udp, echo(t, "udp", ours()), "-local-bypass", "require")}).serve(t)
	if port := l.listed(t, udp); port.Bypass != "off" {
		t.Errorf("of a UDP port the worker tells %q, want off", port.Bypass)
	}
}

// TestLocalBypassReplaced: containers come and go at one port while clients connect. No client reaches one that had
// gone before it connected, and none waits for long.
func TestLocalBypassReplaced(t *testing.T) {
	needroot.Check(t)
	const rounds = 100
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	var gone atomic.Uint64 // the backends below this number
	var reached atomic.Uint64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := gone.Load()
				conn, err := net.DialTimeout("tcp", frontend.String(), timeout)
				switch {
				// The port is not there, or its end has reset a connection of the proxy: after the backend's end that is EPIPE.
				// Or it has ended a connect.
				case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
					errors.Is(err, syscall.ECONNABORTED):
					continue
				case err != nil:
					t.Errorf("connect: %v", err)
					return
				}
				rig.Check(t, conn.SetDeadline(time.Now().Add(timeout)))
				got, err := readName(conn)
				_ = conn.Close() // it was heard
				switch {
				case errors.Is(err, unix.ETIMEDOUT):
					t.Errorf("a connection hangs: %v", err)
				case err == nil && got < least:
					t.Errorf("backend %d was reached after its port had gone", got)
				case err == nil:
					reached.Add(1)
				}
			}
		})
	}
	defer clients.Wait()
	defer close(stop)
	for round := range uint64(rounds) {
		p := l.bypassing(t, frontend, namedBackend(t, round))
		before := reached.Load()
		until(t, "a client has been served", func() bool { return reached.Load() > before })
		p.signalled(t, syscall.SIGINT)
		gone.Store(round + 1)
	}
}

// TestLocalBypassKilled: a worker that is killed leaves nothing behind, and the next one bypasses again.
func TestLocalBypassKilled(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	l.bypassing(t, frontend, namedBackend(t, 1))
	before := l.worker(t)
	freeze(t, before) // clients are bypassed all the same
	name(t, dial(t, "tcp", frontend))
	must(t, syscall.Kill(before, syscall.SIGKILL))
	name(t, dial(t, "tcp", frontend)) // by the next worker, in whichever way
	until(t, "another worker serves", func() bool {
		w := l.workers(t)
		return len(w) == 1 && w[0] != before && l.listed(t, frontend).Bypass == "on"
	})
	counted := l.listed(t, frontend).Counters["bypassed"]
	name(t, dial(t, "tcp", frontend))
	if got := l.listed(t, frontend).Counters["bypassed"]; got != counted+1 {
		t.Errorf("%d connections were bypassed, want %d", got, counted+1)
	}
}

// TestLocalBypassProcess: what has brought the bypass into the kernel keeps no capability. When it dies another takes its
// place, unless it dies time and again; ports are served all the while, and their counts go on.
func TestLocalBypassProcess(t *testing.T) {
	needroot.Check(t)
	const deaths = 3
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	p := l.bypassing(t, frontend, namedBackend(t, 1))
	pid := 0
	for death := range uint64(deaths) {
		pid = l.bypasser(t, pid)
		until(t, "the port is bypassed", func() bool { return l.listed(t, frontend).Bypass == "on" })
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(t, err)
		for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
			if !strings.Contains(string(b), want+"\n") {
				t.Errorf("want %q in\n%s", want, b)
			}
		}
		if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || bytes.Contains(b, []byte("GOMAXPROCS")) {
			t.Errorf("the environment is %q, %v; the number of CPUs is for the worker's start", b, err)
		}
		name(t, dial(t, "tcp", frontend))
		if got := l.listed(t, frontend).Counters["bypassed"]; got != death+1 {
			t.Errorf("%d connections were bypassed, want %d", got, death+1)
		}
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	until(t, "a line says that it is over", func() bool { return len(p.log()) > 0 })
	if log := p.log()[0]; log != "portsplice: -local-bypass: not any more: portsplice-bypass has ended\n" {
		t.Errorf("the log is %q", log)
	}
	name(t, dial(t, "tcp", frontend))
	if port := l.listed(t, frontend); port.Bypass != "portsplice-bypass has ended" || port.Counters["bypassed"] != deaths ||
		port.Counters["accepted"] != 1 {
		t.Errorf("the worker tells %q and %v", port.Bypass, port.Counters)
	}
}

// TestLocalBypassWithoutProgram: where it is not installed, or is of another build, a port that requires it is refused.
// One that was served before by a worker that had it is served on: dockerd would not hear of its end.
func TestLocalBypassWithoutProgram(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	path := filepath.Join(l.dir, "portsplice-bypass")
	refused := func(want string) {
		t.Helper()
		r := l.run(run{args: arguments("tcp", freePort(t, "tcp", ours()), namedBackend(t, 0), "-local-bypass", "require")})
		if p := r.start(t); !strings.HasPrefix(p.status, "1\n-local-bypass require: ") || !strings.Contains(p.status, want) {
			t.Errorf("the status is %q, want 1 and %q", p.status, want)
		}
	}
	frontend := freePort(t, "tcp", ours())
	p := l.bypassing(t, frontend, namedBackend(t, 1))
	fd, bound := rig.Bind(t, ours()) // by dockerd
	socket := os.NewFile(uintptr(fd), "listener")
	l.run(run{args: arguments("tcp", bound, namedBackend(t, 1), "-use-listen-fd", "-local-bypass", "require"), socket: socket}).serve(t)
	must(t, socket.Close())
	must(t, os.Remove(path))
	before := l.worker(t)
	must(t, syscall.Kill(before, syscall.SIGKILL))
	const missing = "portsplice-bypass: no such file or directory"
	until(t, "another worker serves", func() bool {
		return strings.Contains(l.listed(t, frontend).Bypass, missing) && strings.Contains(l.listed(t, bound).Bypass, missing)
	})
	name(t, dial(t, "tcp", frontend))
	name(t, dial(t, "tcp", bound))
	until(t, "a line says why", func() bool { return len(p.log()) > 0 })
	if log := p.log()[0]; !strings.HasPrefix(log, "portsplice: -local-bypass require: not here: ") ||
		!strings.Contains(log, missing) {
		t.Errorf("the log is %q", log)
	}
	refused(missing)
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version=other", "-o", path, "../portsplice-bypass").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	refused(`portsplice-bypass is of version other, and its worker of another: ["1.2.3"]`)
}

// TestLocalBypassCannot takes away what it needs: auto serves the port, and says once for all ports why not;
// require refuses it with the reason.
func TestLocalBypassCannot(t *testing.T) {
	needroot.Check(t)
	for _, test := range []struct {
		name   string
		change func(r run) run
		call   func(t *testing.T, f func())
		want   string
	}{
		{"no capabilities", func(r run) run {
			r.args = append([]string{"--bounding-set", "-bpf,-net_admin,-sys_admin", r.program}, r.args...)
			r.program = "/usr/bin/setpriv"
			return r
		}, nil, "without CAP_BPF and CAP_NET_ADMIN: "},
		{"no cgroups", func(r run) run {
			r.args = append([]string{"-m", "sh", "-c", `umount -l -a -t cgroup2 && exec "$@"`, "sh", r.program}, r.args...)
			r.program = "/usr/bin/unshare"
			r.env = append(r.env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
			return r
		}, nil, "no cgroup hierarchy of version 2 is mounted"},
		{"user namespace", func(r run) run {
			r.args = append([]string{"-r", r.program}, r.args...)
			r.program = "/usr/bin/unshare"
			return r
		}, nil, "capabilities of a user namespace do not count"},
		{"forbidden", nil, func(t *testing.T, f func()) { rig.Forbid(t, unix.SYS_BPF, unix.EPERM, f) },
			"the kernel's lockdown or a security module forbids it"},
		{"Linux before 5.8", nil, func(t *testing.T, f func()) {
			rig.ForbidCase(t, unix.SYS_BPF, 0, unix.BPF_PROG_LOAD, unix.EINVAL, f)
		}, "Linux 5.8 is needed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			backend := echo(t, "tcp", ours())
			begin := func(frontend netip.AddrPort, how string) (p *process) {
				r := l.run(run{args: arguments("tcp", frontend, backend, "-local-bypass", how)})
				if test.change != nil {
					r = test.change(r)
				}
				if test.call == nil {
					return r.start(t)
				}
				test.call(t, func() { p = r.start(t) })
				return p
			}
			var lines []string
			for range 2 {
				frontend := freePort(t, "tcp", ours())
				p := begin(frontend, "auto")
				if p.status != "0\n" {
					t.Fatalf("auto: the status is %q, want 0", p.status)
				}
				exchange(t, dial(t, "tcp", frontend), "hello")
				if port := l.listed(t, frontend); !strings.Contains(port.Bypass, test.want) {
					t.Errorf("the worker tells %q, want %q", port.Bypass, test.want)
				}
				if len(lines) == 0 {
					until(t, "a line says why", func() bool { return len(p.log()) > 0 })
				}
				lines = append(lines, p.log()...)
			}
			if len(lines) != 1 || !strings.HasPrefix(lines[0], "portsplice: -local-bypass auto: not here: ") ||
				!strings.Contains(lines[0], test.want) {
				t.Errorf("the log is %q, want one line with %q", lines, test.want)
			}
			p := begin(freePort(t, "tcp", ours()), "require")
			if !strings.HasPrefix(p.status, "1\n-local-bypass require: ") || !strings.Contains(p.status, test.want) {
				t.Errorf("require: the status is %q, want 1 and %q", p.status, test.want)
			}
			if code := p.ends(t); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
		})
	}
}

// TestLocalBypassWithoutCookies: before Linux 5.14 processes are not told what their network namespace is.
func TestLocalBypassWithoutCookies(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	frontend, backend := freePort(t, "tcp", ours()), namedBackend(t, 1)
	var p *process
	rig.ForbidCase(t, unix.SYS_GETSOCKOPT, 2, unix.SO_NETNS_COOKIE, unix.ENOPROTOOPT, func() {
		p = l.bypassing(t, frontend, backend)
	})
	name(t, dial(t, "tcp", frontend))
	if c := p.counters(t); c["bypassed"] != "1" || c["accepted"] != "0" {
		t.Errorf("%s bypassed and %s accepted, want 1 and 0", c["bypassed"], c["accepted"])
	}
}

// TestLocalBypassAlone: a port that is served without a worker has none.
func TestLocalBypassAlone(t *testing.T) {
	const want = "it takes a worker, and the port is served without one\n"
	backend := echo(t, "tcp", ours())
	frontend := freePort(t, "tcp", ours())
	p := run{args: arguments("tcp", frontend, backend, "-local-bypass", "auto")}.serve(t)
	exchange(t, dial(t, "tcp", frontend), "hello")
	until(t, "a line says why", func() bool { return len(p.log()) > 0 })
	if log := p.log(); len(log) != 1 || log[0] != "portsplice: -local-bypass auto: not here: "+want {
		t.Errorf("the log is %q", log)
	}
	r := run{args: arguments("tcp", freePort(t, "tcp", ours()), backend, "-local-bypass", "require")}
	r.fails(t, "-local-bypass require: "+strings.TrimSuffix(want, "\n"))
}

// namedBackend tells whoever connects its number.
func namedBackend(t *testing.T, number uint64) netip.AddrPort {
	t.Helper()
	return rig.Serve(t, rig.Listen(t, ours()), func(conn *net.TCPConn) {
		_, _ = fmt.Fprintln(conn, number) // the client notices
	})
}

func readName(conn net.Conn) (uint64, error) {
	b, err := io.ReadAll(conn)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

func name(t *testing.T, conn net.Conn) uint64 {
	t.Helper()
	n, err := readName(conn)
	must(t, err)
	return n
}
