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
	"time"

	"golang.org/x/sys/unix"
)

// proxy is the program under dockerd's contract: a status pipe as descriptor 3, the listening socket as 4.
type proxy struct {
	*exec.Cmd
	frontend netip.AddrPort
	stderr   *bufio.Scanner
}

func start(program string, backend netip.AddrPort) (*proxy, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	socket, err := l.File()
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	defer func() { _ = socket.Close() }() // the proxy has its own
	status, report, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = status.Close() }()
	frontend := l.Addr().(*net.TCPAddr).AddrPort()
	p := &proxy{frontend: frontend, Cmd: exec.Command(program, "-proto", "tcp",
		"-host-ip", frontend.Addr().String(), "-host-port", fmt.Sprint(frontend.Port()),
		"-container-ip", backend.Addr().String(), "-container-port", fmt.Sprint(backend.Port()),
		"-use-listen-fd")}
	p.ExtraFiles = []*os.File{report, socket}
	stderr, err := p.StderrPipe()
	if err != nil {
		return nil, err
	}
	p.stderr = bufio.NewScanner(stderr)
	err = p.Start()
	if err = errors.Join(err, report.Close()); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(status)
	if err == nil && string(answer) != "0\n" {
		err = fmt.Errorf("the proxy answered %q", answer)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// counters asks the proxy for its counters.
func (p *proxy) counters() (string, error) {
	if err := p.Process.Signal(unix.SIGUSR1); err != nil {
		return "", err
	}
	for p.stderr.Scan() {
		if line, found := strings.CutPrefix(p.stderr.Text(), "portsplice: stats "); found {
			return line, nil
		}
		fmt.Println(p.stderr.Text())
	}
	return "", errors.Join(errors.New("the proxy printed no counters"), p.stderr.Err())
}

// stop ends the proxy as dockerd does, and gives the CPU time that it used.
func (p *proxy) stop() (time.Duration, error) {
	if err := p.Process.Signal(os.Interrupt); err != nil {
		return 0, err
	}
	err := p.Wait()
	return p.ProcessState.UserTime() + p.ProcessState.SystemTime(), err
}

// kill makes sure that the proxy ends.
func (p *proxy) kill() {
	_ = p.Process.Kill() // it may have ended
	_ = p.Wait()         // and been waited for
}
