package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buildShim builds the shim beside the program.
func buildShim(dir string) error {
	out, err := exec.Command("../portsplice-shim/build", filepath.Join(dir, "portsplice-shim")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// lab is a copy of the shim and the program, which has a worker of its own.
type lab struct{ dir string }

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t.TempDir()}
	must(t, os.Chmod(l.dir, 0o755))
	for _, name := range []string{"portsplice", "portsplice-bypass", "portsplice-shim"} {
		l.install(t, name)
	}
	t.Cleanup(func() {
		for _, pid := range l.workers(t) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may end by itself
		}
		until(t, "the workers have ended", func() bool { return len(l.workers(t)) == 0 })
		until(t, "what they had started has, too", func() bool { return len(l.bypassers(t)) == 0 })
	})
	return l
}

// install copies a program, as a package manager does: the name gets another file.
func (l *lab) install(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(program), name))
	must(t, err)
	fresh := filepath.Join(l.dir, name+".new")
	must(t, os.WriteFile(fresh, b, 0o755))
	must(t, os.Rename(fresh, filepath.Join(l.dir, name)))
}

// run is a start of the shim, with nothing else in its environment: it would be in the memory of its process.
func (l *lab) run(r run) run {
	r.bare = true
	r.program = filepath.Join(l.dir, "portsplice-shim")
	return r
}

// workers are the processes, of whichever build.
func (l *lab) workers(t *testing.T) (pids []int) { return l.processes(t, "portsplice", "worker") }

// processes are those of a program of the lab with that argument.
func (l *lab) processes(t *testing.T, name, argument string) (pids []int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	want := filepath.Join(l.dir, name) + "\x00" + argument + "\x00"
	for _, line := range lines {
		if b, err := os.ReadFile(line); err == nil && string(b) == want {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line)))
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func (l *lab) worker(t *testing.T) int {
	t.Helper()
	pids := l.workers(t)
	if len(pids) != 1 {
		t.Fatalf("there are workers %v, want one", pids)
	}
	return pids[0]
}

// descriptors is how many the worker has.
func (l *lab) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.worker(t)))
	must(t, err)
	return len(open)
}

// publish has a port served, in front of that backend.
func (l *lab) publish(t *testing.T, protocol string, backend netip.AddrPort) (*process, netip.AddrPort) {
	t.Helper()
	frontend := freePort(t, protocol, ours())
	return l.run(run{args: arguments(protocol, frontend, backend)}).serve(t), frontend
}

// alone says whether a shim has become the program.
func (p *process) alone(t *testing.T) bool {
	t.Helper()
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Process.Pid))
	must(t, err)
	return filepath.Base(target) == "portsplice"
}

// TestShimAndWorker: ports of every protocol have one worker; a port's own process is small, and the counters are the
// port's own.
func TestShimAndWorker(t *testing.T) {
	l := newLab(t)
	least := math.MaxInt // by where the kernel puts the stack, a page more
	for _, protocol := range []string{"tcp", "udp"} {
		for i := range 3 {
			p, frontend := l.publish(t, protocol, echo(t, protocol, ours()))
			least = min(least, p.privateKB(t)) // before any signal: the kernel puts up to 3 kB on the stack for it
			for range i + 1 {
				exchange(t, dial(t, protocol, frontend), "hello")
			}
			counter, want := "accepted", strconv.Itoa(i+1)
			if protocol == "udp" {
				counter = "datagrams-in"
			}
			until(t, "the port's connections are counted", func() bool { return p.counters(t)[counter] == want })
			if p.alone(t) {
				t.Error("the port is served without a worker")
			}
			if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.Process.Pid)); err != nil || len(threads) != 1 {
				t.Errorf("%d threads, %v; want 1", len(threads), err)
			}
		}
	}
	must(t, syscall.Kill(l.worker(t), syscall.SIGUSR1)) // which is for shims, and ends nobody
	_, frontend := l.publish(t, "tcp", echo(t, "tcp", ours()))
	exchange(t, dial(t, "tcp", frontend), "hello")
	if least > 12 { // a page of data and two of stack
		t.Errorf("%d kB of private memory for a port, want at most 12", least)
	}
	l.worker(t)
}

// TestShimRefuses: what is wrong with a port is dockerd's to hear, and ends the shim.
func TestShimRefuses(t *testing.T) {
	l := newLab(t)
	_, taken := l.publish(t, "tcp", echo(t, "tcp", ours()))
	for _, c := range []struct {
		args []string
		want string
	}{
		{arguments("tcp", taken, netip.AddrPortFrom(ours(), 1), "-x"), "flag provided but not defined: -x"},
		{arguments("tcp", taken, netip.AddrPortFrom(ours(), 1)), "address already in use"},
		{arguments("tcp", freePort(t, "tcp", ours()), netip.AddrPortFrom(ours(), 1), "-use-listen-fd"),
			"-use-listen-fd: descriptor 4: no socket was handed over"},
	} {
		p := l.run(run{args: c.args}).start(t)
		if !strings.HasPrefix(p.status, "1\n") || !strings.Contains(p.status, c.want) {
			t.Errorf("the status is %q, want 1 and %q", p.status, c.want)
		}
		if code := p.ends(t); code != 1 {
			t.Errorf("exit status %d, want 1", code)
		}
	}
	exchange(t, dial(t, "tcp", taken), "hello")
}

// TestShimAlone: without the program beside it the shim says so in a person's shell, where no dockerd waits for it.
func TestShimAlone(t *testing.T) {
	l := newLab(t)
	must(t, os.Remove(filepath.Join(l.dir, "portsplice")))
	out, err := exec.Command(filepath.Join(l.dir, "portsplice-shim"), "-version").CombinedOutput()
	if want := filepath.Join(l.dir, "portsplice") + ": No such file or directory\n"; err == nil || string(out) != want {
		t.Errorf("%v, says %q, want %q", err, out, want)
	}
}

// TestShimIsNotTheProgram: a shim that was installed under the program's name says so, and does not start itself.
func TestShimIsNotTheProgram(t *testing.T) {
	l := newLab(t)
	must(t, os.Rename(filepath.Join(l.dir, "portsplice-shim"), filepath.Join(l.dir, "portsplice")))
	p := run{program: filepath.Join(l.dir, "portsplice"), args: []string{"-proto", "tcp"}}.start(t)
	if !strings.HasPrefix(p.status, "1\nthe program portsplice is the shim itself") {
		t.Errorf("the status is %q", p.status)
	}
	if code := p.ends(t); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
}

// TestShimVersion: a question of a person is answered by the program.
func TestShimVersion(t *testing.T) {
	out, err := exec.Command(filepath.Join(newLab(t).dir, "portsplice-shim"), "-version").Output()
	if must(t, err); string(out) != "portsplice version 1.2.3, "+runtime.Version()+"\n" {
		t.Errorf("printed %q", out)
	}
}

// TestShimStops: SIGINT ends the port and its connections before the shim ends: dockerd may bind the address again at
// once, as it does when a container is restarted. (Docker 29 binds UDP without SO_REUSEADDR.)
func TestShimStops(t *testing.T) {
	const rounds = 250
	l := newLab(t)
	for _, protocol := range []string{"tcp", "udp"} {
		backend, frontend := echo(t, protocol, ours()), freePort(t, protocol, ours())
		for range rounds {
			p := l.run(run{args: arguments(protocol, frontend, backend)}).serve(t)
			conn, err := net.Dial(protocol, frontend.String())
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(timeout)))
			exchange(t, conn, "hello")
			p.signalled(t, syscall.SIGINT)
			if protocol == "tcp" {
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Fatal("the connection lives on")
				}
			} else {
				held, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(frontend))
				must(t, err)
				must(t, held.Close())
			}
			must(t, conn.Close())
		}
	}
	l.worker(t)
}

// TestShimHandover: the socket of dockerd 29 is nobody's once the port has ended.
func TestShimHandover(t *testing.T) {
	l := newLab(t)
	for range 20 {
		fd, frontend := bindBehindFilter(t, unix.SOCK_DGRAM)
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
		socket := os.NewFile(uintptr(fd), "socket")
		p := l.run(run{args: arguments("udp", frontend, echo(t, "udp", ours()), "-use-listen-fd"), socket: socket}).serve(t)
		must(t, socket.Close())
		exchange(t, dial(t, "udp", frontend), "hello")
		p.signalled(t, syscall.SIGINT)
		again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(frontend))
		must(t, err)
		must(t, again.Close())
	}
}

// TestShimTerminated: when dockerd has ended (SIGTERM is its Pdeathsig), or somebody has killed the shim, the address is
// free at once and connections live on.
func TestShimTerminated(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			l := newLab(t)
			backend := echo(t, "tcp", ours())
			p, frontend := l.publish(t, "tcp", backend)
			conn := dial(t, "tcp", frontend)
			exchange(t, conn, "before")
			kill(t, p, signal)
			var again *process
			until(t, "the address is free", func() bool {
				again = l.run(run{args: arguments("tcp", frontend, backend)}).start(t)
				return again.status == "0\n"
			})
			exchange(t, conn, "still there")
			exchange(t, dial(t, "tcp", frontend), "the next port")
			kill(t, again, syscall.SIGTERM)
			exchange(t, conn, "and still")
		})
	}
}

// kill ends a shim whose connections live on. Its standard error is the worker's meanwhile, so that is not waited for.
func kill(t *testing.T, p *process, signal syscall.Signal) {
	t.Helper()
	must(t, p.Process.Signal(signal))
	_, err := p.Process.Wait()
	must(t, err)
}

// TestWorkerKilled: a worker that dies takes no port along. Clients that connect meanwhile wait and are served.
func TestWorkerKilled(t *testing.T) {
	const ports = 100
	l := newLab(t)
	var frontends []netip.AddrPort
	var shims []*process
	for i := range ports {
		protocol := []string{"tcp", "udp"}[i%2]
		p, frontend := l.publish(t, protocol, echo(t, protocol, ours()))
		shims, frontends = append(shims, p), append(frontends, frontend)
	}
	for range 2 {
		before, killed := l.worker(t), time.Now()
		must(t, syscall.Kill(before, syscall.SIGKILL))
		for i := 0; i < ports; i += 2 {
			exchange(t, dial(t, "tcp", frontends[i]), "hello")
		}
		until(t, "another worker serves", func() bool { w := l.workers(t); return len(w) == 1 && w[0] != before })
		for i := 1; i < ports; i += 2 {
			answers(t, frontends[i])
		}
		t.Logf("all %d ports have answered %v after the worker was killed", ports, time.Since(killed).Round(time.Millisecond))
	}
	for _, p := range shims {
		p.signalled(t, syscall.SIGINT)
	}
}

// answers waits until a UDP port does: what a worker had taken when it died is lost.
func answers(t *testing.T, frontend netip.AddrPort) {
	t.Helper()
	conn := dial(t, "udp", frontend)
	until(t, "the port answers", func() bool {
		_, err := conn.Write([]byte("hello"))
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = conn.Read(make([]byte, 8))
		return err == nil
	})
}

// TestWorkersDie: where no worker lives the port is served without one, and one line says so.
func TestWorkersDie(t *testing.T) {
	l := newLab(t)
	p, frontend := l.publish(t, "tcp", echo(t, "tcp", ours()))
	var dead []int
	until(t, "the shim gives up", func() bool {
		for _, pid := range l.workers(t) {
			if !slices.Contains(dead, pid) {
				dead = append(dead, pid)
				must(t, syscall.Kill(pid, syscall.SIGKILL))
			}
		}
		return p.alone(t)
	})
	if len(dead) < 3 { // some before they served the port
		t.Errorf("%d workers died, want 3", len(dead))
	}
	exchange(t, dial(t, "tcp", frontend), "hello")
	until(t, "a line says why", func() bool { return len(p.log()) > 0 })
	const want = "portsplice: the port is served without a worker: three workers died " // within ten seconds, or at once
	if log := p.log(); len(log) != 1 || !strings.HasPrefix(log[0], want) {
		t.Errorf("the log is %q, want %q", log, want)
	}
	p.signalled(t, syscall.SIGTERM)
}

// TestWorkerHangs: a port that starts while the worker stands still is served without it, long before dockerd gives up.
// When it goes on it does not serve what has been given up.
func TestWorkerHangs(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	_, served := l.publish(t, "tcp", backend)
	worker := l.worker(t)
	freeze(t, worker)
	p, frontend := l.publish(t, "tcp", backend)
	if !p.alone(t) {
		t.Error("a worker serves the port")
	}
	exchange(t, dial(t, "tcp", frontend), "hello")
	must(t, syscall.Kill(worker, syscall.SIGCONT))
	exchange(t, dial(t, "tcp", served), "hello")
	exchange(t, dial(t, "tcp", frontend), "hello")
	p.signalled(t, syscall.SIGTERM)
	until(t, "nobody listens", func() bool {
		conn, err := net.Dial("tcp", frontend.String())
		if err == nil {
			must(t, conn.Close())
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// freeze stops a process, and waits until its last thread has: threads serve on until one of them has heard the signal.
func freeze(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	until(t, "all threads are stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		must(t, err)
		return !slices.ContainsFunc(threads, func(path string) bool {
			b, err := os.ReadFile(path)
			return err == nil && !bytes.Contains(b, []byte(") T "))
		})
	})
}

// TestLastPort: the worker ends once the last port and the last connection are gone.
func TestLastPort(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p, frontend := l.publish(t, "tcp", echo(t, "tcp", ours()))
	conn, err := net.Dial("tcp", frontend.String())
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	exchange(t, conn, "hello")
	kill(t, p, syscall.SIGTERM)
	exchange(t, conn, "hello")
	must(t, conn.Close())
	until(t, "the worker has ended", func() bool { return len(l.workers(t)) == 0 })
}

// TestUpgrade: a new build has a worker of its own, and nothing of the old one's is cut.
func TestUpgrade(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	_, frontend := l.publish(t, "tcp", backend)
	conn := dial(t, "tcp", frontend)
	exchange(t, conn, "hello")
	l.install(t, "portsplice")
	_, another := l.publish(t, "tcp", backend)
	exchange(t, dial(t, "tcp", another), "new")
	exchange(t, dial(t, "tcp", frontend), "old")
	exchange(t, conn, "old")
	if got := len(l.workers(t)); got != 2 {
		t.Errorf("%d workers, want one for each build", got)
	}
}

// TestWorkerOption: PORTSPLICE_WORKER says whether there is to be one.
func TestWorkerOption(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	t.Run("off", func(t *testing.T) {
		frontend := freePort(t, "tcp", ours())
		p := l.run(run{args: arguments("tcp", frontend, backend), env: []string{"PORTSPLICE_WORKER=off"}}).serve(t)
		if !p.alone(t) || len(l.workers(t)) != 0 {
			t.Error("a worker serves the port")
		}
		exchange(t, dial(t, "tcp", frontend), "hello")
	})
	for program, reason := range map[string]string{
		"/none":     "the program is not there",
		"/bin/true": "three workers died before they answered",
	} {
		t.Run("require "+program, func(t *testing.T) {
			p := l.run(run{args: arguments("tcp", freePort(t, "tcp", ours()), backend),
				env: []string{"PORTSPLICE_WORKER=require", "PORTSPLICE_PROGRAM=" + program}}).start(t)
			if want := "1\nPORTSPLICE_WORKER=require: " + reason + "\n"; p.status != want {
				t.Errorf("the status is %q, want %q", p.status, want)
			}
			if code := p.ends(t); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
		})
	}
}

// TestWorkerWithoutDescriptors: dockerd hears the reason, and the ports that are served do not notice.
func TestWorkerWithoutDescriptors(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	_, served := l.publish(t, "tcp", backend)
	conn := dial(t, "tcp", served)
	exchange(t, conn, "hello")
	worker := l.worker(t)
	for _, spare := range []int{0, 1, 2, 3} { // for the connection, its standard error, the port's socket
		var limit unix.Rlimit
		must(t, unix.Prlimit(worker, unix.RLIMIT_NOFILE, nil, &limit))
		limit.Cur = numbersWith(t, worker, spare)
		must(t, unix.Prlimit(worker, unix.RLIMIT_NOFILE, &limit, nil))
		p := l.run(run{args: arguments("tcp", freePort(t, "tcp", ours()), backend)}).start(t)
		if !strings.HasPrefix(p.status, "1\n") || !strings.Contains(p.status, "descriptors") &&
			!strings.Contains(p.status, "too many open files") {
			t.Errorf("%d to spare: the status is %q, want 1 and that descriptors have run out", spare, p.status)
		}
		if code := p.ends(t); code != 1 {
			t.Errorf("exit status %d, want 1", code)
		}
		exchange(t, conn, "hello")
	}
	if l.worker(t) != worker {
		t.Error("the worker has died")
	}
}

// numbersWith is below which number a process has so many descriptors to spare.
func numbersWith(t *testing.T, pid, spare int) (number uint64) {
	t.Helper()
	for ; ; number++ {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, number))
		if errors.Is(err, os.ErrNotExist) {
			if spare--; spare < 0 {
				return number
			}
			continue
		}
		must(t, err)
	}
}

// TestFloodedPort: one of twenty ports gets more clients than there are descriptors for. The others answer.
func TestFloodedPort(t *testing.T) {
	const ports, limit = 20, 500
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	frontends := make([]netip.AddrPort, ports)
	for i := range frontends {
		frontends[i] = freePort(t, "tcp", ours())
		// The first shim starts the worker, which inherits its limit.
		l.run(run{args: arguments("tcp", frontends[i], backend), descriptors: limit}).serve(t)
	}
	_, udp := l.publish(t, "udp", echo(t, "udp", ours()))
	for range limit { // more than 7/8 of them have room for
		dial(t, "tcp", frontends[0])
	}
	until(t, "the port has what it may", func() bool { return l.descriptors(t) > limit*3/4 })
	for _, frontend := range frontends[1:] {
		exchange(t, dial(t, "tcp", frontend), "hello")
	}
	exchange(t, dial(t, "udp", udp), "hello")
}

// TestPortsHaveNoThreads: what a port has in the worker is no thread, whatever its protocol.
func TestPortsHaveNoThreads(t *testing.T) {
	const ports = 100
	l := newLab(t)
	for range ports / 2 {
		l.publish(t, "udp", echo(t, "udp", ours()))
		l.publish(t, "tcp", echo(t, "tcp", ours()))
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", l.worker(t)))
	must(t, err)
	if len(threads) > ports/5 {
		t.Errorf("a worker of %d ports has %d threads", ports, len(threads))
	}
}

// TestWorkerInheritsNothing: what dockerd waits for the end of is closed, and so is what a person has open.
func TestWorkerInheritsNothing(t *testing.T) {
	l := newLab(t)
	l.publish(t, "tcp", echo(t, "tcp", ours())) // which has waited for the end of the status pipe
	worker := l.worker(t)
	for fd, want := range map[int]string{0: os.DevNull, 1: os.DevNull, 2: os.DevNull} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", worker, fd)); got != want || err != nil {
			t.Errorf("descriptor %d is %s, %v; want %s", fd, got, err, want)
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
	must(t, err)
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if parent, session := fields[1], fields[3]; parent == strconv.Itoa(os.Getpid()) || session != strconv.Itoa(worker) &&
		session == strconv.Itoa(os.Getpid()) {
		t.Errorf("parent %s, session %s", parent, session)
	}
}
