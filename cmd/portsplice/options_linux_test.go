package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
)

// optionsFile is a file of options that changes as people change theirs: by another one of its name.
type optionsFile struct{ path string }

func newOptionsFile(t *testing.T, text string) optionsFile {
	t.Helper()
	f := optionsFile{filepath.Join(t.TempDir(), "portsplice.json")}
	f.write(t, text)
	return f
}

func (f optionsFile) write(t *testing.T, text string) {
	t.Helper()
	must(t, os.WriteFile(f.path+".new", []byte(text), 0o600))
	must(t, os.Rename(f.path+".new", f.path))
}

// env is what tells a proxy of it.
func (f optionsFile) env() []string { return []string{"PORTSPLICE_CONFIG=" + f.path} }

// TestFileRefusesPort: dockerd is told file, line and reason by a port for which the file is wrong, with a worker and
// without. Other ports are served, and those that run are not touched.
func TestFileRefusesPort(t *testing.T) {
	l := newLab(t)
	for _, how := range []struct {
		name string
		of   func(run) run
	}{
		{"program", func(r run) run { return r }},
		{"shim", l.run},
	} {
		t.Run(how.name, func(t *testing.T) {
			good, bad := freePort(t, "tcp", ours()), freePort(t, "tcp", ours())
			backend := echo(t, "tcp", ours())
			f := newOptionsFile(t, fmt.Sprintf("{ \"dial-timeout\": \"5s\", \"ports\": {\n\"%d/tcp\": {\n\"splice\": \"warp\" } } }", bad.Port()))
			served := how.of(run{args: arguments("tcp", good, backend), env: f.env()}).serve(t)
			conn := dial(t, "tcp", good)
			exchange(t, conn, "hello")
			refused := how.of(run{args: arguments("tcp", bad, backend), env: f.env()}).start(t)
			want := fmt.Sprintf("1\n%s:3: \"%d/tcp\": \"splice\": \"warp\": one of [\"adaptive\" \"always\" \"never\"] is known\n", f.path, bad.Port())
			if refused.status != want {
				t.Errorf("the status is %q, want %q", refused.status, want)
			}
			if code := refused.ends(t); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			f.write(t, "{\n\"dial-timeot\": \"5s\" }")
			refused = how.of(run{args: arguments("tcp", bad, backend), env: f.env()}).start(t)
			if want := f.path + `:2: "dial-timeot": no such option; "dial-timeout" is one`; !strings.HasPrefix(refused.status, "1\n"+want) {
				t.Errorf("the status is %q, want %q", refused.status, want)
			}
			exchange(t, conn, "hello")
			exchange(t, dial(t, "tcp", good), "hello")
			if served.alone(t) != (how.name == "program") {
				t.Error("the port is served by another process than it was")
			}
			f.write(t, "{}") // each port that starts reads the file
			exchange(t, dial(t, "tcp", good), "hello")
			how.of(run{args: arguments("tcp", bad, backend), env: f.env()}).serve(t)
			exchange(t, dial(t, "tcp", bad), "hello")
		})
	}
}

// TestFileBreaksAServedPort: the worker dies while the file is wrong. Clients wait until it is right.
func TestFileBreaksAServedPort(t *testing.T) {
	l := newLab(t)
	f := newOptionsFile(t, "{}")
	frontend := freePort(t, "tcp", ours())
	p := l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours())), env: f.env()}).serve(t)
	f.write(t, "{\n\"engin\": 1 }")
	must(t, syscall.Kill(l.worker(t), syscall.SIGKILL))
	conn := dial(t, "tcp", frontend)
	const why = ":2: \"engin\": no such option; \"engine\" is one\n"
	until(t, "a line says why", func() bool { return len(p.log()) > 0 })
	if want := "portsplice: clients wait until the file is right: " + f.path + why; p.log()[0] != want {
		t.Errorf("the log is %q, want %q", p.log(), want)
	}
	f.write(t, `{"local-bypass": "require", "proxy-protocol": "v2"}`) // each of which is right
	until(t, "a line says so", func() bool {
		return slices.ContainsFunc(p.log(), func(line string) bool {
			return strings.HasPrefix(line, "portsplice: clients wait until the file is right: -local-bypass require: ")
		})
	})
	f.write(t, `{"local-bypass": "require"}`) // which dockerd would have been told of
	exchange(t, conn, "hello")
	until(t, "a line says how the port is served", func() bool {
		return slices.Contains(p.log(), "portsplice: the port is served without a worker: "+f.path+why)
	})
	p.signalled(t, syscall.SIGINT)

	frontend = freePort(t, "tcp", ours())
	p = l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours())), env: f.env()}).serve(t)
	f.write(t, "{\n\"engin\": 1 }")
	must(t, syscall.Kill(l.worker(t), syscall.SIGKILL))
	until(t, "the port waits", func() bool { return len(p.log()) > 0 })
	p.signalled(t, syscall.SIGINT) // also then dockerd can stop it
}

// buildControl builds portsplicectl beside the program.
var buildControl = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(program), "portsplicectl")
	if out, err := exec.Command("go", "build", "-o", path, "../portsplicectl").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// control runs portsplicectl. It fails also if a worker of some other test, of another build, does not understand it.
func control(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path, err := buildControl()
	must(t, err)
	var out, errs bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if exit := (*exec.ExitError)(nil); !errors.As(cmd.Run(), &exit) {
		return out.String(), errs.String(), 0
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// contains checks that a text has all these in it.
func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s: got %q, want %q in it", what, text, w)
		}
	}
}

// reloads are the two ways.
var reloads = map[string]func(t *testing.T, l *lab){
	"portsplicectl": func(t *testing.T, _ *lab) { control(t, "reload") },
	"SIGHUP":        func(t *testing.T, l *lab) { must(t, syscall.Kill(l.worker(t), syscall.SIGHUP)) },
}

// TestReload: what can change does so while connections live, and what cannot is told. A bad file changes nothing.
func TestReload(t *testing.T) {
	for name, reload := range reloads {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			f := newOptionsFile(t, `{ "dial-timeout": "1h", "udp-timeout": "1h", "max-flows": 100 }`)
			serve := func(protocol string, frontend, backend netip.AddrPort) *process {
				return l.run(run{args: arguments(protocol, frontend, backend), env: f.env()}).serve(t)
			}
			stuck, tcp, udp := freePort(t, "tcp", ours()), freePort(t, "tcp", ours()), freePort(t, "udp", ours())
			stuckPort := serve("tcp", stuck, rig.Silent(t, ours()))
			tcpPort := serve("tcp", tcp, echo(t, "tcp", ours()))
			udpPort := serve("udp", udp, echo(t, "udp", ours()))
			conn := dial(t, "tcp", tcp)
			exchange(t, conn, "hello")
			exchange(t, dial(t, "udp", udp), "hello")
			dial(t, "tcp", stuck)
			until(t, "the dial is under way", func() bool { return l.listed(t, stuck).Counters["active"] == 1 })

			f.write(t, `{ "dial-timeout": "10ms", "udp-timeout": "10ms", "ports": { "1/tcp": { "engin": "" } } }`) // of none of them
			reload(t, l)
			exchange(t, conn, "hello")
			f.write(t, `{ "dial-timeout": "1h", "udp-timeout": "1h", "max-flows": 100 }`)
			for _, p := range l.options(t) {
				for _, o := range p.Options {
					if o.InForce != nil {
						t.Errorf("after a bad file %s/%s has %s in force for %s, want what it had: %s", p.Frontend, p.Protocol, *o.InForce, o.Option, o.Value)
					}
				}
			}

			f.write(t, fmt.Sprintf(`{ "dial-timeout": "10ms", "udp-timeout": "10ms", "max-flows": 101,
				"ports": { "%d/tcp": { "engine": "fallback", "splice": "never" } } }`, tcp.Port()))
			reload(t, l)
			until(t, "the idle flow is forgotten", func() bool { return l.listed(t, udp).Counters["flows"] == 0 })
			rig.WantReset(t, stuck) // its dial has begun after the reload
			exchange(t, conn, "hello")
			for p, want := range map[*process]string{
				stuckPort: "portsplice: reload: dial-timeout is 10ms now, and was 1h0m0s\n",
				tcpPort: "portsplice: reload: dial-timeout is 10ms now, and was 1h0m0s; " +
					"engine stays auto: fallback is for when the port is published anew; splice is never now, and was adaptive\n",
				udpPort: "portsplice: reload: max-flows is 101 now, and was 100; udp-timeout is 10ms now, and was 1h0m0s\n",
			} {
				until(t, "a line tells of the reload", func() bool { return len(p.log()) > 0 })
				if log := p.log(); log[0] != want {
					t.Errorf("the log is %q, want %q", log, want)
				}
			}
			stuckPort.signalled(t, syscall.SIGINT) // its first dial would keep the shim's standard error open for long
		})
	}
}

// options are those of the lab's ports.
func (l *lab) options(t *testing.T) []worker.PortOptions {
	t.Helper()
	pid := l.worker(t)
	answers, _ := worker.Ask[worker.Options]("options") // whatever workers of other tests say
	for _, a := range answers {
		if a.Worker == pid {
			return a.Ports
		}
	}
	t.Fatal("the worker does not answer")
	return nil
}

// TestReloadTells: portsplicectl prints what has changed and what has not, and fails with file, line and reason.
func TestReloadTells(t *testing.T) {
	l := newLab(t)
	f := newOptionsFile(t, "{}")
	frontend := freePort(t, "tcp", ours())
	l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours())), env: f.env()}).serve(t)
	summary := fmt.Sprintf("worker %d: read the options of 1 ports, other ones for ", l.worker(t))
	out, _, _ := control(t, "reload")
	contains(t, "nothing is new", out, summary+"0\n")
	f.write(t, `{ "dial-timeout": "5s", "engine": "splice" }`)
	out, _, _ = control(t, "reload")
	contains(t, "new options", out, fmt.Sprintf("%v/tcp: dial-timeout is 5s now, and was 10s\n", frontend),
		fmt.Sprintf("%v/tcp: engine stays auto: splice is for when the port is published anew\n", frontend), summary+"1\n")
	f.write(t, "{\n\"dial-timeout\": \"soon\" }")
	out, said, code := control(t, "reload")
	contains(t, "a bad file", said, f.path+":2: \"dial-timeout\": \"soon\": not a time, such as 500ms, 10s or 2m\n",
		fmt.Sprintf("worker %d: nothing has changed for its 1 ports\n", l.worker(t)))
	if code != 1 || strings.Contains(out, summary) {
		t.Errorf("a bad file: exit status %d, want 1; it printed %q", code, out)
	}
}

// TestHangUpOfWorker: a reload by SIGHUP that changes nothing says why in the journal, and does not end the worker.
func TestHangUpOfWorker(t *testing.T) {
	needroot.Check(t)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "systemd/journal"), 0o755))
	socket := net.UnixAddr{Name: filepath.Join(dir, "systemd/journal/socket"), Net: "unixgram"}
	journal, err := net.ListenUnixgram("unixgram", &socket)
	must(t, err)
	defer func() { must(t, journal.Close()) }()
	must(t, journal.SetReadDeadline(time.Now().Add(timeout)))
	l := newLab(t)
	f := newOptionsFile(t, "{}")
	frontend := freePort(t, "tcp", ours())
	shim := append([]string{filepath.Join(l.dir, "portsplice-shim")}, arguments("tcp", frontend, echo(t, "tcp", ours()))...)
	p := run{program: "unshare", args: append([]string{"-m", "sh", "-c", `mount --bind "$0" /run && exec "$@"`, dir}, shim...),
		env: f.env(), bare: true}.serve(t)
	before := l.worker(t)
	for range 2 {
		f.write(t, "{ \"dial-timeout\": \"1s\",\n\"engin\": 1 }")
		must(t, syscall.Kill(before, syscall.SIGHUP))
		b := make([]byte, 1<<16)
		n, err := journal.Read(b)
		must(t, err)
		contains(t, "the journal", string(b[:n]), "PRIORITY=3\n", "reload: nothing has changed: "+f.path+":2: \"engin\": no such option")
		f.write(t, "{}")
		if p := l.options(t)[0]; p.Error != "" || slices.ContainsFunc(p.Options, func(o worker.Option) bool { return o.InForce != nil }) {
			t.Errorf("a bad file has changed the port's options, or these cannot be read: %v", p)
		}
	}
	exchange(t, dial(t, "tcp", frontend), "hello")
	if after := l.worker(t); after != before {
		t.Errorf("worker %d has become %d", before, after)
	}
	p.signalled(t, syscall.SIGINT)
}

// TestConfig: every option of a port that is served, with each kind of source.
func TestConfig(t *testing.T) {
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	f := newOptionsFile(t, fmt.Sprintf("{ \"ports\": {\n\"%d/tcp\": { \"splice\": \"never\", \"engine\": \"auto\" } } }", frontend.Port()))
	l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", "splice"),
		env: append(f.env(), "PORTSPLICE_DIAL_TIMEOUT=2s")}).serve(t)
	f.write(t, fmt.Sprintf("{ \"ports\": {\n\n\"%d/tcp\": { \"splice\": \"always\" } } }", frontend.Port()))
	out, _, _ := control(t, "config", fmt.Sprintf("%d/tcp", frontend.Port()))
	contains(t, "config", strings.Join(strings.Fields(strings.ReplaceAll(out, f.path, "FILE")), " "),
		fmt.Sprintf("%v/tcp OPTION VALUE FROM ", frontend), "dial-timeout 2s PORTSPLICE_DIAL_TIMEOUT ", "engine splice -engine ",
		"local-bypass off default ", "splice always FILE:3 (in force: never)")
	out, _, _ = control(t, "config", "--json", fmt.Sprintf("%v/tcp", frontend))
	var ports []worker.PortOptions
	must(t, json.Unmarshal([]byte(out), &ports))
	if len(ports) != 1 || ports[0].Frontend != frontend.String() || len(ports[0].Options) < 4 {
		t.Errorf("got %v", ports)
	}
	f.write(t, "{")
	out, said, code := control(t, "config", fmt.Sprintf("%d/tcp", frontend.Port()))
	contains(t, "a bad file", said, fmt.Sprintf("%v/tcp: %s:1: unexpected end of JSON input\n", frontend, f.path))
	if out != "" || code != 1 {
		t.Errorf("with a bad file it printed %q and ended with %d, want nothing and 1", out, code)
	}
}
