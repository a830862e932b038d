package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestIdleConnections_moby11185 has 10,000 idle connections, half of them through each of two proxies, because a
// process may have no more than 20,000 descriptors in some places. Each costs two descriptors, less than 0.5 kB of
// private memory and no pipe, also after it has carried a message.
func TestIdleConnections_moby11185(t *testing.T) {
	const proxies, connections, warmUp = 2, 5000, 500
	backend := elsewhere(t)
	for range proxies {
		frontend := freePort(t, "tcp", ours())
		// With one event loop: on a busy machine there may be another at the end, and it has descriptors.
		p := run{args: arguments("tcp", frontend, backend, "-engine", "splice"), env: []string{"GOMAXPROCS=1"}}.serve(t)
		opened := 0
		open := func(n int) {
			for ; opened < n; opened++ {
				exchange(t, dial(t, "tcp", frontend), "hello")
			}
		}
		open(warmUp) // the heap's own structures are there
		memory, descriptors := p.privateKB(t), p.descriptors(t)
		open(connections)
		const added = connections - warmUp
		if got, want := p.descriptors(t)-descriptors, 2*added; got != want {
			t.Errorf("%d idle connections have %d descriptors, want %d", added, got, want)
		}
		perConnection := float64(p.privateKB(t)-memory) / added
		t.Logf("%.3f kB of private memory for an idle connection", perConnection)
		if perConnection >= 0.5 {
			t.Errorf("an idle connection costs %.3f kB of private memory, want less than 0.5", perConnection)
		}
		if c := p.counters(t); c["pipes"] != "0" || c["active"] != fmt.Sprint(connections) {
			t.Errorf("%v; want %d active and no pipes", c, connections)
		}
	}
}

// backendVariable, when it is set, makes the test binary a backend rather than run tests.
const backendVariable = "PORTSPLICE_TEST_BACKEND"

// elsewhere runs such a backend, which has descriptors of its own. It ends with its standard input.
func elsewhere(t *testing.T) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), backendVariable+"=yes")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { rig.Check(t, errors.Join(stdin.Close(), cmd.Wait())) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	addr, err := netip.ParseAddrPort(strings.TrimSpace(line))
	must(t, err)
	return addr
}

// answerOnce is the backend: it answers the first five bytes of each connection and leaves it open. A goroutine does
// for all, because the race detector does not know more than 8,128.
func answerOnce() error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopbackV4, 0)))
	if err != nil {
		return err
	}
	fmt.Println(rig.Address(l))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started us closes it, or ends
		_ = l.Close()
	}()
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close() // whoever is at the other end has gone
		}
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		b := make([]byte, len("hello"))
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
		open = append(open, conn)
	}
}
