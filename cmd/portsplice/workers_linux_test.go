package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

// TestWorkersOfTheHost: root is told of the ports of this network namespace, of another one, and of one in a user
// namespace, as a rootless dockerd has it, each with where it is. Another user is told of none of them.
func TestWorkersOfTheHost(t *testing.T) {
	l, other := newLab(t), rig.Namespace(t)
	must(t, os.Chmod(filepath.Dir(l.dir), 0o755)) // for the user
	backend := netip.MustParseAddrPort("127.0.0.1:2")
	own := freePort(t, "tcp", ours())
	l.run(run{args: arguments("tcp", own, backend)}).serve(t)
	there := netip.MustParseAddrPort("127.0.0.1:1")
	var name string
	must(t, other.Do(func() (err error) {
		l.run(run{args: arguments("tcp", there, backend)}).serve(t)
		name, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}))
	rootless := netip.MustParseAddrPort("0.0.0.0:1") // its loopback is down
	rootlessName := l.rootless(t, arguments("tcp", rootless, backend))

	want := []string{own.String() + " ", there.String() + " " + name, rootless.String() + " " + rootlessName}
	slices.Sort(want)
	if got := l.told(t); !slices.Equal(got, want) {
		t.Errorf("root is told of\n%q, want\n%q", got, want)
	}
	as(t, another, func() {
		if got := l.told(t); len(got) > 0 {
			t.Errorf("another user is told of %q", got)
		}
	})
}

// told are the ports of the lab's workers that are found, each with its namespace.
func (l *lab) told(t *testing.T) (ports []string) {
	t.Helper()
	answers, _ := workers.Ask[worker.List]("list") // whatever workers of other tests say
	ours := l.workers(t)
	for _, a := range answers {
		for _, p := range a.Told.Ports {
			if slices.Contains(ours, a.Told.Worker) { // and not another test's
				ports = append(ports, p.Frontend+" "+a.Namespace)
			}
		}
	}
	slices.Sort(ports)
	return ports
}

// rootless has a port served in a user namespace of somebody's, and gives the name of its network namespace.
func (l *lab) rootless(t *testing.T, args []string) (namespace string) {
	t.Helper()
	needroot.Check(t)
	shim := exec.Command("unshare", append([]string{"--user", "--map-root-user", "--net", "--",
		filepath.Join(l.dir, "portsplice-shim")}, args...)...)
	shim.Env = leakcheck.Environment("PATH="+os.Getenv("PATH"), "PORTSPLICE_WORKER=require")
	shim.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	status, report, err := os.Pipe()
	must(t, err)
	defer func() { must(t, status.Close()) }()
	shim.ExtraFiles = []*os.File{report}
	must(t, shim.Start())
	t.Cleanup(func() {
		_ = shim.Process.Kill() // it runs until then
		_ = shim.Wait()
	})
	must(t, report.Close())
	answer := make([]byte, 100)
	n, err := status.Read(answer)
	if err != nil || string(answer[:n]) != "0\n" {
		t.Fatalf("the shim in a user namespace answers %q, %v", answer[:n], err)
	}
	namespace, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", shim.Process.Pid))
	must(t, err)
	return namespace
}

// TestUnitOfExporter: with the capabilities that the exporter's unit leaves it, root is told of the ports of a rootless dockerd.
func TestUnitOfExporter(t *testing.T) {
	needroot.Check(t)
	unit, err := os.ReadFile("../../internal/packaging/portsplice-exporter.service")
	must(t, err)
	_, line, found := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	if !found {
		t.Fatal("the unit bounds no capabilities")
	}
	line, _, _ = strings.Cut(line, "\n")
	l := newLab(t)
	must(t, os.Chmod(filepath.Dir(l.dir), 0o755)) // for the user
	namespace := l.rootless(t, arguments("tcp", netip.MustParseAddrPort("0.0.0.0:1"), netip.MustParseAddrPort("127.0.0.1:2")))
	path, err := buildControl()
	must(t, err)
	bounds := "-all" + strings.ReplaceAll(" "+strings.ToLower(line), " cap_", ",+")
	out, err := exec.Command("setpriv", "--bounding-set", bounds, path, "ps").CombinedOutput()
	if !strings.Contains(string(out), namespace) || strings.Contains(string(out), "not permitted") {
		t.Errorf("%v, says\n%s\nwant a port in %s", err, out, namespace)
	}
}

// TestSandboxOfAnother: a user's process in a user namespace, which shares the network namespace with root's worker, is not
// taken for a rootless dockerd's.
func TestSandboxOfAnother(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	l.publish(t, "tcp", echo(t, "tcp", ours()))
	by := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	sandbox := exec.Command("unshare", "--user", "--map-current-user", "--", "sh", "-c", "echo; read end")
	sandbox.SysProcAttr = by
	in, err := sandbox.StdinPipe()
	must(t, err)
	out, err := sandbox.StdoutPipe()
	must(t, err)
	must(t, sandbox.Start())
	defer func() { _ = sandbox.Wait() }() // the line is none
	defer func() { must(t, in.Close()) }()
	_, err = out.Read(make([]byte, 1)) // it is in there
	must(t, err)

	built, err := buildControl()
	must(t, err)
	b, err := os.ReadFile(built)
	must(t, err)
	path := filepath.Join(l.dir, "portsplicectl") // where the user may get to
	must(t, os.WriteFile(path, b, 0o755))
	must(t, os.Chmod(filepath.Dir(l.dir), 0o755))
	ps := exec.Command("sh", "-c", path+" ps; exit $?") // the shell is there, too
	ps.SysProcAttr = by
	said, err := ps.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(said), "No portsplice worker of yours runs in this network namespace") {
		t.Errorf("%v, says %q", err, said)
	}
}

// TestClients: a worker tells who talks most by a port, of each engine, and what is wrong with a question.
func TestClients(t *testing.T) {
	l := newLab(t)
	ask := func(question string) []worker.PortClients {
		answers, _ := worker.Ask[worker.Clients](question) // whatever workers of other tests say
		for _, a := range answers {
			if a.Worker == l.worker(t) {
				return a.Ports
			}
		}
		return nil
	}
	for _, port := range []struct{ protocol, engine string }{
		{"tcp", "splice"}, {"tcp", "fallback"}, {"udp", "auto"}, {"udp", "fallback"},
	} {
		frontend := freePort(t, port.protocol, ours())
		args := arguments(port.protocol, frontend, echo(t, port.protocol, ours()), "-engine", port.engine)
		p := l.run(run{args: args}).serve(t)
		for i := range 3 {
			exchange(t, dial(t, port.protocol, frontend), strings.Repeat("x", 10*(i+1)))
		}
		until(t, "the two that have said most are told of", func() bool {
			ports := ask(fmt.Sprintf("clients 2 %s %v", port.protocol, frontend))
			return len(ports) == 1 && ports[0].Shim == p.Process.Pid && len(ports[0].Clients) == 2 &&
				ports[0].Clients[0].BytesIn == 30 && ports[0].Clients[1].BytesOut == 20 && ports[0].Clients[0].Age > 0
		})
	}
	if ports := ask("clients 2 udp 127.0.0.1:1"); len(ports) != 0 {
		t.Errorf("of a port that there is not the worker tells %v", ports)
	}
	for _, question := range []string{"clients 101 tcp 127.0.0.1:1", "clients x", "clients -1 tcp 127.0.0.1:1"} {
		if _, err := worker.Ask[worker.Clients](question); err == nil || !strings.Contains(err.Error(), "want a number up to 100") {
			t.Errorf("%q is answered %v", question, err)
		}
	}
}

// TestSilentWorker: a worker that stands still is named, and the ports of another one are listed all the same.
func TestSilentWorker(t *testing.T) {
	silent, other := newLab(t), newLab(t)
	_, hidden := silent.publish(t, "tcp", echo(t, "tcp", ours()))
	_, frontend := other.publish(t, "tcp", echo(t, "tcp", ours()))
	pid := silent.worker(t)
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { must(t, syscall.Kill(pid, syscall.SIGCONT)) }()
	out, said, code := control(t, "ps")
	contains(t, "ps", out, frontend.String()+"/tcp")
	contains(t, "ps", said, fmt.Sprintf(": process %d has not answered within 1s: it is stopped, or the host too busy\n", pid))
	if code != 1 || strings.Contains(out, hidden.String()) {
		t.Errorf("ps ends with %d and prints %s", code, out)
	}
}

// TestDraining: a port whose dockerd has ended drains until its last connection has ended.
func TestDraining(t *testing.T) {
	l := newLab(t)
	p, frontend := l.publish(t, "tcp", echo(t, "tcp", ours()))
	conn := dial(t, "tcp", frontend)
	exchange(t, conn, "hello")
	state := func() string {
		lists, _ := worker.Ask[worker.List]("list") // as above
		for _, list := range lists {
			for _, port := range list.Ports {
				if port.Frontend == frontend.String() {
					return port.State
				}
			}
		}
		return "gone"
	}
	if got := state(); got != worker.Serving {
		t.Errorf("the port is %s", got)
	}
	kill(t, p, syscall.SIGTERM)
	until(t, "the port drains", func() bool { return state() == worker.Draining })
	exchange(t, conn, "hello")
	must(t, conn.Close())
	until(t, "the port is gone", func() bool { return state() == "gone" })
}
