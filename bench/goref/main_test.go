//go:build unix

package main

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { benchtest.Main(m, main) }

// A reply that begins after the request has ended arrives whole, and a signal is the end.
func TestRelaysAsDockerdExpects(t *testing.T) {
	frontend := rig.Listen(t, rig.Loopback)
	backend := rig.Backend(t, func(conn *net.TCPConn) {
		request, err := io.ReadAll(conn)
		rig.Check(t, err)
		_, err = conn.Write(bytes.ToUpper(request))
		rig.Check(t, err)
	})
	cmd, status := run(t, "tcp", frontend, rig.Address(frontend), backend)
	if status != "0\n" {
		t.Fatalf("the status is %q", status)
	}
	client := rig.Dial(t, "tcp", rig.Address(frontend)).(*net.TCPConn)
	_, err := io.WriteString(client, "request")
	rig.Must(t, err)
	rig.Must(t, client.CloseWrite())
	reply, err := io.ReadAll(client)
	rig.Must(t, err)
	if string(reply) != "REQUEST" {
		t.Errorf("the reply is %q", reply)
	}
	rig.Must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

// Every client has its own answer.
func TestRelaysDatagrams(t *testing.T) {
	var sockets [2]*net.UDPConn
	for i := range sockets {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(rig.Loopback, 0)))
		rig.Must(t, err)
		rig.Must(t, c.SetDeadline(time.Now().Add(rig.Timeout)))
		t.Cleanup(func() { rig.Check(t, c.Close()) })
		sockets[i] = c
	}
	frontend, backend := sockets[0], sockets[1]
	address := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	if _, status := run(t, "udp", frontend, address(frontend), address(backend)); status != "0\n" {
		t.Fatalf("the status is %q", status)
	}
	for _, question := range []string{"first", "second"} {
		client := rig.Dial(t, "udp", address(frontend))
		_, err := io.WriteString(client, question)
		rig.Must(t, err)
		b := make([]byte, 64)
		n, from, err := backend.ReadFromUDPAddrPort(b)
		rig.Must(t, err)
		_, err = backend.WriteToUDPAddrPort(bytes.ToUpper(b[:n]), from)
		rig.Must(t, err)
		n, err = client.Read(b)
		rig.Must(t, err)
		if want := strings.ToUpper(question); string(b[:n]) != want {
			t.Errorf("the answer is %q, want %q", b[:n], want)
		}
	}
}

// One process may have many ports. An address of the loopback network that no other test process uses keeps others from them.
func TestServesMoreThanOnePort(t *testing.T) {
	const first, n = 9900, 3
	ours := benchtest.OwnAddress()
	backend := rig.Backend(t, func(conn *net.TCPConn) {
		_, err := io.WriteString(conn, "hello")
		rig.Check(t, err)
	})
	cmd, status := run(t, "tcp", nil, netip.AddrPortFrom(ours, first), backend, "-ports", strconv.Itoa(n))
	if status != "0\n" {
		t.Fatalf("the status is %q", status)
	}
	for i := range uint16(n) {
		greeting, err := io.ReadAll(rig.Dial(t, "tcp", netip.AddrPortFrom(ours, first+i)))
		rig.Must(t, err)
		if string(greeting) != "hello" {
			t.Errorf("port %d says %q", first+i, greeting)
		}
	}
	if _, err := net.DialTimeout("tcp4", netip.AddrPortFrom(ours, first+n).String(), rig.Timeout); err == nil {
		t.Errorf("there are more than %d ports", n)
	}
	rig.Must(t, cmd.Process.Signal(os.Interrupt))
	rig.Must(t, cmd.Wait())
}

func TestTellsWhyItDoesNotServe(t *testing.T) {
	taken := rig.Address(rig.Listen(t, rig.Loopback))
	cmd, status := run(t, "tcp", nil, taken, taken)
	if reason, refused := strings.CutPrefix(status, "1\n"); !refused || !strings.Contains(reason, "address already in use") {
		t.Errorf("the status is %q", status)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("exit status 0")
	}
}

// run starts the program, with the frontend's socket if there is one, and gives what it says on the status pipe.
func run(t *testing.T, protocol string, frontend interface{ File() (*os.File, error) }, at, backend netip.AddrPort,
	more ...string) (*exec.Cmd, string) {
	t.Helper()
	var sockets []*os.File
	if frontend != nil {
		socket, err := frontend.File()
		rig.Must(t, err)
		defer func() { rig.Check(t, socket.Close()) }()
		sockets, more = append(sockets, socket), append(more, "-use-listen-fd")
	}
	return benchtest.Start(t, sockets, append([]string{"-proto", protocol,
		"-host-ip", at.Addr().String(), "-host-port", strconv.Itoa(int(at.Port())),
		"-container-ip", backend.Addr().String(), "-container-port", strconv.Itoa(int(backend.Port()))}, more...)...)
}
