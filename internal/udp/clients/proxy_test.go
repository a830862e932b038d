package clients

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

var program = flag.String("proxy", "", "the proxy under test")

func TestMain(m *testing.M) {
	flag.Parse()
	if *program == "" {
		fmt.Fprintln(os.Stderr, "-proxy is missing: make test-udp builds one and runs these tests with it")
		os.Exit(1)
	}
	leakcheck.Main(m)
}

// What the tests of this package say all the time.
const patience = rig.Timeout

var (
	must = rig.Must
	ours = rig.OwnAddress
)

// proxy is a proxy that serves.
type proxy struct {
	process *os.Process
	log     *bufio.Scanner
}

// serve starts a proxy that ends with the test.
func serve(t *testing.T, frontend, backend netip.AddrPort) *proxy {
	t.Helper()
	status, report, err := os.Pipe()
	must(t, err)
	cmd := exec.Command(*program, "-proto", "udp",
		"-host-ip", frontend.Addr().String(), "-host-port", fmt.Sprint(frontend.Port()),
		"-container-ip", backend.Addr().String(), "-container-port", fmt.Sprint(backend.Port()))
	cmd.ExtraFiles = []*os.File{report}
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		must(t, cmd.Wait())
	})
	must(t, report.Close())
	answer, err := io.ReadAll(status)
	if err := errors.Join(err, status.Close()); err != nil || string(answer) != "0\n" {
		t.Fatalf("the proxy answered %q, %v", answer, err)
	}
	return &proxy{cmd.Process, bufio.NewScanner(stderr)}
}

// counters asks for the proxy's counters. Failures that it logged fail the test.
func (p *proxy) counters(t *testing.T) map[string]uint64 {
	t.Helper()
	must(t, p.process.Signal(syscall.SIGUSR1))
	for p.log.Scan() {
		words, found := strings.CutPrefix(p.log.Text(), "portsplice: stats engine=udp ")
		if !found {
			t.Errorf("the proxy says: %s", p.log.Text())
			continue
		}
		counters := map[string]uint64{}
		for word := range strings.FieldsSeq(words) {
			name, value, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			must(t, err)
			counters[name] = n
		}
		return counters
	}
	t.Fatal("the proxy's log has ended: ", p.log.Err())
	return nil
}

// freePort finds a port that is free on an address.
func freePort(t *testing.T, on netip.Addr) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	must(t, err)
	must(t, conn.Close())
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}
