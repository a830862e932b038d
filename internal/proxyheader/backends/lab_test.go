//go:build header_backends && linux

package backends

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

var proxy = flag.String("proxy", "", "the proxy under test")

func TestMain(m *testing.M) {
	flag.Parse()
	if *proxy == "" {
		fmt.Fprintln(os.Stderr, "-proxy is missing: make test-headers builds one and runs these tests with it")
		os.Exit(1)
	}
	leakcheck.Main(m)
}

// lab is a host with a container behind it, a client, and a load balancer between that and the host.
type lab struct{ host, container, client, balancer *netlab.Namespace }

// Addresses of the lab. The container has IPv4 alone, as most have.
var (
	host4     = netip.MustParseAddr("198.18.0.1") // towards the client, as host6
	host6     = netip.MustParseAddr("fd00::1")
	gateway   = netip.MustParseAddr("198.18.1.1") // the host, towards the container
	container = netip.MustParseAddr("198.18.1.2")
	balancer  = netip.MustParseAddr("198.18.2.1") // towards the client
	inner     = netip.MustParseAddr("198.18.3.1") // the balancer, towards the host
	outer     = netip.MustParseAddr("198.18.3.2") // the host, towards the balancer
)

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{rig.Namespace(t), rig.Namespace(t), rig.Namespace(t), rig.Namespace(t)}
	net4 := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24) }
	rig.Must(t, errors.Join(
		netlab.Cable("client", l.host, net4(host4), l.client, net4(host4.Next())),
		netlab.Cable("container", l.host, net4(gateway), l.container, net4(container)),
		netlab.Cable("outside", l.balancer, net4(balancer), l.client, net4(balancer.Next())),
		netlab.Cable("inside", l.balancer, net4(inner), l.host, net4(outer)),
		l.host.Up("client", netip.PrefixFrom(host6, 64)),
		l.client.Up("client", netip.PrefixFrom(host6.Next(), 64)),
	))
	return l
}

// server is a program that runs until the test ends.
type server struct{ log rig.Output }

// says waits for a line that has that in it.
func (s *server) says(t *testing.T, what string) {
	t.Helper()
	rig.Until(t, "the log says "+what, func() bool { return strings.Contains(s.log.String(), what) })
}

// run starts a program in a namespace, and ends it, and all that it has started, when the test ends.
func run(t *testing.T, in *netlab.Namespace, command ...string) *server {
	t.Helper()
	s, cmd := &server{}, exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = rig.Timeout
	rig.Must(t, in.Do(cmd.Start))
	t.Cleanup(func() {
		rig.Check(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)) // Postfix takes seconds to end by itself
		var status *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &status) { // which is that of the signal
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s:\n%s", command[0], s.log.String())
		}
	})
	return s
}

// answers waits until somebody listens.
func answers(t *testing.T, in *netlab.Namespace, at netip.AddrPort) {
	t.Helper()
	rig.Until(t, at.String()+" is served", func() bool {
		return in.Do(func() error {
			conn, err := net.Dial("tcp", at.String())
			if err == nil {
				err = conn.Close()
			}
			return err
		}) == nil
	})
}

// publish has the proxy serve a port of the host.
func (l *lab) publish(t *testing.T, frontend, backend netip.AddrPort, options ...string) {
	t.Helper()
	status, report, err := os.Pipe()
	rig.Must(t, err)
	cmd := exec.Command(*proxy, append([]string{
		"-host-ip", frontend.Addr().String(), "-host-port", fmt.Sprint(frontend.Port()),
		"-container-ip", backend.Addr().String(), "-container-port", fmt.Sprint(backend.Port())}, options...)...)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{report}, os.Stderr
	rig.Must(t, l.host.Do(cmd.Start))
	t.Cleanup(func() { rig.Check(t, errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())) })
	rig.Must(t, report.Close())
	answer, err := io.ReadAll(status)
	if err := errors.Join(err, status.Close()); err != nil || string(answer) != "0\n" {
		t.Fatalf("the proxy answered %q, %v", answer, err)
	}
}

// dial connects from the client's place.
func (l *lab) dial(t *testing.T, to netip.AddrPort) (conn net.Conn) {
	t.Helper()
	rig.Must(t, l.client.Do(func() error {
		conn = rig.Dial(t, "tcp", to)
		return nil
	}))
	return conn
}

// file writes a file for a program.
func file(t *testing.T, path, content string) string {
	t.Helper()
	rig.Must(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}
