package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

// What the tests of this package say all the time.
const timeout = rig.Timeout

var (
	must  = rig.Must
	until = rig.Until
	ours  = rig.OwnAddress
)

// dial connects to the frontend; the caller's test ends before the connection does.
func dial(t *testing.T, protocol string, to netip.AddrPort) net.Conn {
	t.Helper()
	return rig.Dial(t, protocol, to)
}

// program is the binary under test.
var program string

func TestMain(m *testing.M) {
	contained := os.Getenv(containerVariable)
	var err error
	switch {
	case contained != "":
		err = beContained(contained)
	case os.Getenv(backendVariable) != "":
		err = answerOnce()
	default:
		os.Exit(buildAndRun(m))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "process of a test:", err)
		os.Exit(1)
	}
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "portsplice-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()     // a temporary directory
	if err := os.Chmod(dir, 0o755); err != nil { // tests run the program as other users too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "portsplice")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3", "-o", dir+"/", ".", "../portsplice-bypass")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	if err := buildShim(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return leakcheck.Run(m)
}

// process is the program as dockerd starts it.
type process struct {
	*exec.Cmd
	status string // all that it wrote to the status pipe
	stderr *rig.Output
	began  time.Time
	last   map[string]string // the counters when they were asked for last
}

// run describes a start of the program.
type run struct {
	args   []string
	env    []string // beside this process's own
	socket *os.File // descriptor 4; nil: none
	shell  bool     // no status pipe
	user   uint32   // 0: our own

	descriptors int     // RLIMIT_NOFILE; zero: this process's own
	program     string  // empty: the program; else a shim
	bare        bool    // the environment is env alone
	namespaces  uintptr // of its own (CLONE_NEWPID, ...)
}

// engines are what moves TCP.
var engines = []string{"splice", "fallback"}

// frontend gives the arguments for serving addr with backend.
func arguments(protocol string, frontend, backend netip.AddrPort, more ...string) []string {
	return append([]string{
		"-proto", protocol,
		"-host-ip", frontend.Addr().String(), "-host-port", fmt.Sprint(frontend.Port()),
		"-container-ip", backend.Addr().String(), "-container-port", fmt.Sprint(backend.Port()),
	}, more...)
}

// start starts the program and waits for its answer on the status pipe. It is killed when the test ends.
func (r run) start(t *testing.T) *process {
	t.Helper()
	command := append([]string{cmp.Or(r.program, program)}, r.args...)
	if r.descriptors > 0 {
		command = append([]string{"sh", "-c", fmt.Sprintf("ulimit -n %d && exec \"$@\"", r.descriptors), "sh"}, command...)
	}
	p := &process{Cmd: exec.Command(command[0], command[1:]...), stderr: new(rig.Output), began: time.Now()}
	p.Stderr = p.stderr
	p.Env = leakcheck.Environment(r.env...)
	if !r.bare {
		p.Env = append(os.Environ(), r.env...)
	}
	p.Env = slices.Clip(append(p.Env, "LANG=C")) // exec.Cmd takes none for this process's own
	p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: r.namespaces}
	if r.user != 0 {
		p.SysProcAttr.Credential = &syscall.Credential{Uid: r.user, Gid: r.user}
	}
	var answer *os.File
	if !r.shell {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = write.Close() }()
		defer func() { _ = read.Close() }()
		answer = read
		p.ExtraFiles = []*os.File{write}
		if r.socket != nil {
			p.ExtraFiles = append(p.ExtraFiles, r.socket)
		}
		must(t, p.Start())
		must(t, write.Close())
	} else {
		must(t, p.Start())
	}
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended
		_ = p.Wait()         // and been waited for
		if t.Failed() {
			t.Logf("standard error:\n%s\n%v", strings.Join(p.log(), ""), p.last)
		}
	})
	if answer != nil {
		must(t, answer.SetReadDeadline(time.Now().Add(timeout)))
		all, err := io.ReadAll(answer) // dockerd reads up to end of file too
		must(t, err)
		p.status = string(all)
	}
	return p
}

// serve starts the program and expects it to serve.
func (r run) serve(t *testing.T) *process {
	t.Helper()
	p := r.start(t)
	if !r.shell && p.status != "0\n" {
		t.Fatalf("the status is %q, want %q", p.status, "0\n")
	}
	return p
}

// ends waits for the program's end and gives its exit status.
func (p *process) ends(t *testing.T) int {
	t.Helper()
	watchdog := time.AfterFunc(timeout, func() { _ = p.Process.Kill() })
	defer watchdog.Stop()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if p.ProcessState.ExitCode() < 0 {
		t.Errorf("the program did not exit by itself: %v", p.ProcessState)
	}
	return p.ProcessState.ExitCode()
}

// freePort finds a port that is free for the protocol: one that the kernel gives to nobody who asks for any, such as the
// backend that is started next.
func freePort(t *testing.T, protocol string, on netip.Addr) netip.AddrPort {
	t.Helper()
	for {
		addr := netip.AddrPortFrom(on, uint16(10_000+rand.IntN(20_000)))
		var held io.Closer
		var err error
		if protocol == "udp" {
			held, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		} else {
			held, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		must(t, err)
		must(t, held.Close())
		return addr
	}
}

// echo runs a backend that answers with what it gets, on a fresh port.
func echo(t *testing.T, protocol string, on netip.Addr) netip.AddrPort {
	t.Helper()
	if protocol == "udp" {
		return echoUDP(t, on)
	}
	return rig.Serve(t, rig.Listen(t, on), rig.Echo)
}

func echoUDP(t *testing.T, on netip.Addr) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(b[:n], from) // the client notices
		}
	})
	t.Cleanup(func() {
		must(t, conn.Close())
		running.Wait()
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// exchange sends a message and expects it back.
func exchange(t *testing.T, conn net.Conn, message string) {
	t.Helper()
	rig.Exchange(t, conn, []byte(message))
}

// signalled sends the signal and expects exit status 0.
func (p *process) signalled(t *testing.T, s syscall.Signal) {
	t.Helper()
	must(t, p.Process.Signal(s))
	if code := p.ends(t); code != 0 {
		t.Errorf("exit status %d after %v, want 0", code, s)
	}
}

// count asks for one of the counters.
func (p *process) count(t *testing.T, name string) int {
	t.Helper()
	n, err := strconv.Atoi(p.counters(t)[name])
	must(t, err)
	return n
}

// counters asks for the counters and gives them by name.
func (p *process) counters(t *testing.T) map[string]string {
	t.Helper()
	before := strings.Count(p.stderr.String(), statsPrefix)
	must(t, p.Process.Signal(syscall.SIGUSR1))
	lines := func() []string { return strings.Split(p.stderr.String(), statsPrefix) }
	until(t, "the counters are printed", func() bool {
		all := lines()
		return len(all) == before+2 && strings.HasSuffix(all[before+1], "\n")
	})
	p.last = make(map[string]string)
	for word := range strings.FieldsSeq(lines()[before+1]) {
		name, value, _ := strings.Cut(word, "=")
		p.last[name] = value
	}
	return p.last
}

// log is what the program wrote to standard error beside its counters, in lines.
func (p *process) log() []string {
	lines := slices.Collect(strings.Lines(p.stderr.String()))
	return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, statsPrefix) })
}

// says waits until the log has these parts: a line is on its way when its event is counted.
func (p *process) says(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		until(t, "the log has "+strconv.Quote(part), func() bool { return strings.Contains(strings.Join(p.log(), ""), part) })
	}
}

// statsPrefix begins a line of counters.
const statsPrefix = "portsplice: stats "
