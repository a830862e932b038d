//go:build unix

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
)

func TestMain(m *testing.M) { benchtest.Main(m, main) }

// A reply that begins after the request has ended arrives whole, and a signal is the end.
func TestRelaysAsDockerdExpects(t *testing.T) {
	frontend, backend := listen(t), listen(t)
	cmd, status := run(t, "tcp", frontend, backend, "-use-listen-fd")
	if status != "0\n" {
		t.Fatalf("the status is %q", status)
	}
	served := make(chan error, 1)
	go func() { served <- answerAfterTheEnd(backend) }()

	client, err := net.DialTCP("tcp", nil, frontend.Addr().(*net.TCPAddr))
	benchtest.Must(t, err)
	defer func() { benchtest.Must(t, client.Close()) }()
	benchtest.Must(t, client.SetDeadline(time.Now().Add(benchtest.Timeout)))
	_, err = io.WriteString(client, "request")
	benchtest.Must(t, err)
	benchtest.Must(t, client.CloseWrite())
	reply, err := io.ReadAll(client)
	benchtest.Must(t, err)
	benchtest.Must(t, <-served)
	if string(reply) != "REQUEST" {
		t.Errorf("the reply is %q", reply)
	}
	benchtest.Must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

// Every client has its own answer.
func TestRelaysDatagrams(t *testing.T) {
	frontend, backend := listenUDP4(t), listenUDP4(t)
	if _, status := run(t, "udp", frontend, backend, "-use-listen-fd"); status != "0\n" {
		t.Fatalf("the status is %q", status)
	}
	for _, question := range []string{"first", "second"} {
		client, err := net.DialUDP("udp4", nil, frontend.LocalAddr().(*net.UDPAddr))
		benchtest.Must(t, err)
		benchtest.Must(t, client.SetDeadline(time.Now().Add(benchtest.Timeout)))
		_, err = io.WriteString(client, question)
		benchtest.Must(t, err)
		benchtest.Must(t, answerDatagram(backend))
		answer := make([]byte, 64)
		n, err := client.Read(answer)
		benchtest.Must(t, err)
		benchtest.Must(t, client.Close())
		if want := strings.ToUpper(question); string(answer[:n]) != want {
			t.Errorf("the answer is %q, want %q", answer[:n], want)
		}
	}
}

func answerDatagram(socket *net.UDPConn) error {
	question := make([]byte, 64)
	n, client, err := socket.ReadFromUDPAddrPort(question)
	if err != nil {
		return err
	}
	_, err = socket.WriteToUDPAddrPort(bytes.ToUpper(question[:n]), client)
	return err
}

func listenUDP4(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	benchtest.Must(t, err)
	benchtest.Must(t, c.SetDeadline(time.Now().Add(benchtest.Timeout)))
	t.Cleanup(func() { benchtest.Must(t, c.Close()) })
	return c
}

// One process may have many ports.
func TestServesMoreThanOnePort(t *testing.T) {
	benchtest.ManyPorts(t, 3)
}

func TestTellsWhyItDoesNotServe(t *testing.T) {
	taken, backend := listen(t), listen(t)
	cmd, status := run(t, "tcp", taken, backend)
	if reason, refused := strings.CutPrefix(status, "1\n"); !refused || !strings.Contains(reason, "address already in use") {
		t.Errorf("the status is %q", status)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("exit status 0")
	}
}

func answerAfterTheEnd(l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	request, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(conn, strings.ToUpper(string(request))); err != nil {
		return err
	}
	return conn.Close()
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	benchtest.Must(t, err)
	t.Cleanup(func() { benchtest.Must(t, l.Close()) })
	return l
}

// run starts the program with the frontend's socket, and gives what it says on the status pipe.
func run(t *testing.T, protocol string, frontend, backend endpoint, more ...string) (*exec.Cmd, string) {
	t.Helper()
	socket, err := frontend.File()
	benchtest.Must(t, err)
	defer func() { benchtest.Must(t, socket.Close()) }()
	return benchtest.Start(t, []*os.File{socket}, append([]string{"-proto", protocol,
		"-host-ip", "127.0.0.1", "-host-port", port(frontend),
		"-container-ip", "127.0.0.1", "-container-port", port(backend)}, more...)...)
}

// endpoint is a listener or a socket for datagrams.
type endpoint interface{ File() (*os.File, error) }

// port is the port of an endpoint.
func port(e endpoint) string {
	var addr net.Addr
	switch e := e.(type) {
	case *net.TCPListener:
		addr = e.Addr()
	case *net.UDPConn:
		addr = e.LocalAddr()
	}
	_, port, _ := net.SplitHostPort(addr.String()) // it is an address
	return port
}
