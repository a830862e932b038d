//go:build unix

package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

// asProgram in the environment makes the test binary the program.
const asProgram = "GOREF_TEST_AS_PROGRAM"

const timeout = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	leakcheck.Main(m)
}

// A reply that begins after the request has ended arrives whole, and a signal is the end.
func TestRelaysAsDockerdExpects(t *testing.T) {
	frontend, backend := listen(t), listen(t)
	cmd, status := run(t, frontend, backend, "-use-listen-fd")
	if status != "0\n" {
		t.Fatalf("the status is %q", status)
	}
	served := make(chan error, 1)
	go func() { served <- answerAfterTheEnd(backend) }()

	client, err := net.DialTCP("tcp", nil, frontend.Addr().(*net.TCPAddr))
	must(t, err)
	defer func() { must(t, client.Close()) }()
	must(t, client.SetDeadline(time.Now().Add(timeout)))
	_, err = io.WriteString(client, "request")
	must(t, err)
	must(t, client.CloseWrite())
	reply, err := io.ReadAll(client)
	must(t, err)
	must(t, <-served)
	if string(reply) != "REQUEST" {
		t.Errorf("the reply is %q", reply)
	}
	must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

func TestTellsWhyItDoesNotServe(t *testing.T) {
	taken, backend := listen(t), listen(t)
	cmd, status := run(t, taken, backend)
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
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// run starts the program as dockerd does, with the frontend's socket, and gives what it says on the status pipe.
func run(t *testing.T, frontend, backend *net.TCPListener, more ...string) (*exec.Cmd, string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	socket, err := frontend.File()
	must(t, err)
	status, report, err := os.Pipe()
	must(t, err)
	must(t, status.SetReadDeadline(time.Now().Add(timeout)))
	cmd := exec.CommandContext(t.Context(), self, append([]string{"-proto", "tcp",
		"-host-ip", "127.0.0.1", "-host-port", port(frontend),
		"-container-ip", "127.0.0.1", "-container-port", port(backend)}, more...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.ExtraFiles = []*os.File{report, socket}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // and been waited for
	})
	must(t, report.Close())
	must(t, socket.Close())
	answer, err := io.ReadAll(status)
	must(t, err)
	must(t, status.Close())
	return cmd, string(answer)
}

func port(l net.Listener) string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
