package main

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestAnsweredDuringAStandstill stops the program while it dials, until the backend has answered and the time for the dial
// is over: a frozen cgroup, a suspended laptop. The answer counts, and not the clock.
func TestAnsweredDuringAStandstill(t *testing.T) {
	const dialTimeout = "900ms" // less than the second after which the kernel sends a SYN again
	fd, addr := rig.Bind(t, ours())
	must(t, unix.Listen(fd, 0)) // a queue of one, in which the next is
	file := os.NewFile(uintptr(fd), "backend")
	l, err := net.FileListener(file)
	must(t, err)
	defer func() { rig.Check(t, l.Close()) }()
	must(t, file.Close())
	first := dial(t, "tcp", addr)

	frontend := freePort(t, "tcp", ours())
	p := run{args: arguments("tcp", frontend, addr, "-engine", "splice", "-dial-timeout", dialTimeout)}.serve(t)
	client := dial(t, "tcp", frontend)
	until(t, "the program dials", func() bool { return p.count(t, "accepted") == 1 })
	must(t, p.Process.Signal(syscall.SIGSTOP))
	queued, err := l.Accept()
	must(t, err)
	defer func() { rig.Check(t, queued.Close()) }()
	backend, err := l.Accept() // which the kernel of the stopped program has connected
	must(t, err)
	defer func() { rig.Check(t, backend.Close()) }()
	must(t, p.Process.Signal(syscall.SIGCONT))

	for _, way := range [][2]net.Conn{{client, backend}, {backend, client}} {
		_, err := io.WriteString(way[0], "hello")
		must(t, err)
		got := make([]byte, 5)
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v; want the message", got, err)
		}
	}
	must(t, first.Close())
	if failed := p.count(t, "dial-errors"); failed != 0 {
		t.Errorf("%d dials failed", failed)
	}
}
