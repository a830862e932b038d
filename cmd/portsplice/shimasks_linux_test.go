package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// puppet is a worker that says what a test wants. It is asked at a socket of the test's own.
type puppet struct{ *net.UnixListener }

func (l *lab) puppet(t *testing.T) puppet {
	t.Helper()
	listener, err := net.ListenUnix("unixpacket", l.rendezvous(t, os.Geteuid()))
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() }) // the test may have done it
	must(t, listener.SetDeadline(time.Now().Add(timeout)))
	return puppet{listener}
}

// asked waits for a shim's request.
func (p puppet) asked(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := p.AcceptUnix()
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the test may have done it
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	if said := hear(t, conn); !strings.HasPrefix(said, "serve ") {
		t.Fatalf("the shim said %q", said)
	}
	return conn
}

// hear gives the next message.
func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	message := make([]byte, 1<<16)
	n, err := conn.Read(message)
	must(t, err)
	return string(message[:n])
}

func say(t *testing.T, conn *net.UnixConn, message string) {
	t.Helper()
	_, err := conn.Write([]byte(message))
	must(t, err)
}

// serve has a shim start whose port the puppet says that it serves. Clients wait in the queue of the port's socket.
func (p puppet) serve(t *testing.T, l *lab, env ...string) (*process, *net.UnixConn, netip.AddrPort) {
	t.Helper()
	fd, frontend := rig.Bind(t, ours())
	must(t, unix.Listen(fd, 16))
	socket := os.NewFile(uintptr(fd), "listener")
	defer func() { must(t, socket.Close()) }() // the shim has its own
	asked := make(chan *net.UnixConn, 1)
	go func() {
		conn, err := p.AcceptUnix()
		rig.Check(t, err)
		if err == nil {
			_, err = conn.Write([]byte("0\n"))
			rig.Check(t, err)
		}
		asked <- conn
	}()
	shim := l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-use-listen-fd"), socket: socket, env: env}).serve(t)
	return shim, <-asked, frontend
}

// TestShimStopsWhileItAsks: dockerd stops the port while another worker is asked for it. That has the port's socket by
// then, or is about to: the shim ends after it has closed that.
func TestShimStopsWhileItAsks(t *testing.T) {
	l := newLab(t)
	worker := l.puppet(t)
	shim, conn, _ := worker.serve(t, l)
	must(t, conn.Close())
	conn = worker.asked(t)
	must(t, shim.Process.Signal(syscall.SIGINT))
	if said := hear(t, conn); said != "stop" {
		t.Errorf("the shim said %q, want stop", said)
	}
	say(t, conn, "0\n") // to the request, before the word was read
	must(t, conn.Close())
	if code := shim.ends(t); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}

// TestShimStopsWhileThereIsNoWorker: dockerd stops the port while the shim looks for a worker, which does not come.
func TestShimStopsWhileThereIsNoWorker(t *testing.T) {
	l := newLab(t)
	worker := l.puppet(t)
	shim, conn, _ := worker.serve(t, l)
	must(t, worker.Close())
	held, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0) // it does not listen
	must(t, err)
	defer func() { must(t, unix.Close(held)) }()
	must(t, unix.Bind(held, &unix.SockaddrUnix{Name: l.rendezvous(t, os.Geteuid()).Name}))
	before := sockets(t, shim.Process.Pid)
	must(t, conn.Close())
	until(t, "the shim looks for a worker", func() bool {
		now := sockets(t, shim.Process.Pid)
		for inode := range before {
			if !now[inode] {
				return true
			}
		}
		return false
	})
	shim.signalled(t, syscall.SIGINT)
}

// sockets are those that a process has.
func sockets(t *testing.T, pid int) map[string]bool {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(t, err)
	all := make(map[string]bool)
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") { // or it is closed by now
			all[target] = true
		}
	}
	return all
}

// TestWorkerRefusesWhatWasServed: a worker that cannot serve a port which one before it has served does not
// end the port, and is told that it was served; nor does what dockerd would have been told of at its start.
func TestWorkerRefusesWhatWasServed(t *testing.T) {
	const why = "portsplice: the port is served without a worker: no descriptors\n"
	for env, want := range map[string][]string{
		"PORTSPLICE_WORKER=auto":    {why},
		"PORTSPLICE_WORKER=require": {why},
		"PORTSPLICE_LOCAL_BYPASS=require": {"portsplice: -local-bypass require: not here: it takes a worker, and the port is served " +
			"without one\n", why},
	} {
		t.Run(env, func(t *testing.T) {
			l := newLab(t)
			worker := l.puppet(t)
			shim, conn, frontend := worker.serve(t, l, env)
			must(t, conn.Close())
			conn, err := worker.AcceptUnix()
			must(t, err)
			defer func() { must(t, conn.Close()) }()
			must(t, conn.SetDeadline(time.Now().Add(timeout)))
			if head, _, _ := strings.Cut(hear(t, conn), "\x00"); !strings.HasSuffix(head, " 3") {
				t.Errorf("the shim began with %q, want that a worker has served the port, by dockerd's socket", head)
			}
			say(t, conn, "1\nno descriptors\n")
			exchange(t, dial(t, "tcp", frontend), "hello")
			if !shim.alone(t) {
				t.Error("a worker serves the port")
			}
			until(t, "lines say why", func() bool { return len(shim.log()) >= len(want) })
			if log := shim.log(); !slices.Equal(log, want) {
				t.Errorf("the log is %q, want %q", log, want)
			}
			shim.signalled(t, syscall.SIGINT)
		})
	}
}

// TestShimHandoverToOldKernel: the worker has nothing of the port that it was started for, also where the kernel does
// not know close_range(2).
func TestShimHandoverToOldKernel(t *testing.T) {
	l := newLab(t)
	fd, frontend := bindBehindFilter(t, unix.SOCK_DGRAM)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	socket := os.NewFile(uintptr(fd), "socket")
	var p *process
	rig.Forbid(t, unix.SYS_CLOSE_RANGE, unix.ENOSYS, func() {
		p = l.run(run{args: arguments("udp", frontend, echo(t, "udp", ours()), "-use-listen-fd"), socket: socket}).serve(t)
	})
	must(t, socket.Close())
	exchange(t, dial(t, "udp", frontend), "hello")
	l.worker(t)
	p.signalled(t, syscall.SIGINT)
	again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(frontend))
	must(t, err)
	must(t, again.Close())
}

// TestWorkerKeepsNothingOfQuestions: descriptors that come with a question are closed.
func TestWorkerKeepsNothingOfQuestions(t *testing.T) {
	l := newLab(t)
	l.publish(t, "tcp", echo(t, "tcp", ours()))
	for _, question := range []string{"list", "stats"} {
		conn, err := net.DialUnix("unixpacket", nil, l.rendezvous(t, os.Geteuid()))
		must(t, err)
		read, write, err := os.Pipe()
		must(t, err)
		_, _, err = conn.WriteMsgUnix([]byte(question), unix.UnixRights(int(write.Fd())), nil)
		must(t, err)
		must(t, write.Close())
		must(t, read.SetReadDeadline(time.Now().Add(timeout)))
		if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, want the pipe's end", question, err)
		}
		must(t, read.Close())
		must(t, conn.Close())
	}
}

// TestShimStopsWhileItStartsAWorker: the process that is to become a worker has nothing of the port. Else that would be
// bound until its execve(2), after the shim has ended: the window is short, and so there are many rounds.
func TestShimStopsWhileItStartsAWorker(t *testing.T) {
	const rounds = 100
	l := newLab(t)
	for range rounds {
		shim, frontend := l.publish(t, "udp", echo(t, "udp", ours()))
		before := sockets(t, shim.Process.Pid)
		for _, pid := range l.workers(t) {
			must(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		until(t, "the shim has noticed", func() bool { return !maps.Equal(sockets(t, shim.Process.Pid), before) })
		shim.signalled(t, syscall.SIGINT)
		again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(frontend))
		must(t, err)
		must(t, again.Close())
	}
}
