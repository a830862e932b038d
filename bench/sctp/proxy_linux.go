package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench"
)

// process is a running proxy; nil stands for none.
type process struct{ *exec.Cmd }

// start starts the proxy as dockerd does, and gives the address that clients connect to.
func start(proxy bench.Proxy, backend netip.AddrPort) (*process, netip.AddrPort, error) {
	if proxy.Path == "" {
		return nil, backend, nil
	}
	front, err := freePort()
	if err != nil {
		return nil, front, err
	}
	status, report, err := os.Pipe()
	if err != nil {
		return nil, front, err
	}
	defer func() { _ = status.Close() }()
	p := &process{exec.Command(proxy.Path, "-proto", "sctp",
		"-host-ip", front.Addr().String(), "-host-port", strconv.Itoa(int(front.Port())),
		"-container-ip", backend.Addr().String(), "-container-port", strconv.Itoa(int(backend.Port())))}
	p.Stderr = os.Stderr
	p.ExtraFiles = []*os.File{report}
	err = p.Start()
	_ = report.Close() // the process has its own
	if err != nil {
		return nil, front, err
	}
	answer := make([]byte, len("0\n"))
	if _, err := io.ReadFull(status, answer); err != nil || string(answer) != "0\n" {
		p.end()
		return nil, front, fmt.Errorf("%s: status %q, %w", p, answer, err)
	}
	return p, front, nil
}

// freePort finds a port that nobody listens on.
func freePort() (netip.AddrPort, error) {
	fd, front, err := listen()
	if err == nil {
		closeSocket(fd)
	}
	return front, err
}

// end ends the process.
func (p *process) end() {
	if p != nil {
		_ = p.Process.Kill() // it has not ended: nobody has waited for it
		_ = p.Wait()         // its status is the signal's
	}
}

// cpu is the time that the process, with all its threads, has run.
func (p *process) cpu() time.Duration {
	if p == nil {
		return 0
	}
	// CPUCLOCK_SCHED of a process: include/linux/posix-timers_types.h.
	clock := int32(^p.Process.Pid<<3 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		panic(fmt.Sprintf("clock of process %d: %v", p.Process.Pid, err)) // it runs: it has a clock
	}
	return time.Duration(t.Nano())
}
