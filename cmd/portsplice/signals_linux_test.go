package main

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestStops: both of dockerd's signals end the program at once with status 0, whatever is in flight.
func TestStops(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, engine := range engines {
			t.Run(s.String()+" "+engine+" idle", func(t *testing.T) {
				args := arguments("tcp", freePort(t, "tcp", ours()), netip.AddrPortFrom(ours(), 1), "-engine", engine)
				run{args: args}.serve(t).signalled(t, s)
			})
			t.Run(s.String()+" "+engine+" live connections", func(t *testing.T) {
				frontend := freePort(t, "tcp", ours())
				p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine)}.serve(t)
				for range 100 {
					exchange(t, dial(t, "tcp", frontend), "hello")
				}
				p.signalled(t, s)
			})
			t.Run(s.String()+" "+engine+" blocked dials", func(t *testing.T) {
				frontend := freePort(t, "tcp", ours())
				p := run{args: arguments("tcp", frontend, rig.Silent(t, ours()), "-engine", engine)}.serve(t)
				for range 20 {
					dial(t, "tcp", frontend)
				}
				until(t, "the dials are under way", func() bool { return p.counters(t)["active"] == "20" })
				p.signalled(t, s)
			})
		}
		t.Run(s.String()+" udp", func(t *testing.T) {
			frontend := freePort(t, "udp", ours())
			p := run{args: arguments("udp", frontend, echo(t, "udp", ours()))}.serve(t)
			for range 100 {
				exchange(t, dial(t, "udp", frontend), "hello")
			}
			p.signalled(t, s)
		})
	}
}

// TestSignalRightAfterReady: docker-proxy loses this race and dies of the signal.
func TestSignalRightAfterReady(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			args := arguments("tcp", freePort(t, "tcp", ours()), netip.AddrPortFrom(ours(), 1))
			for range 50 {
				read, write, err := os.Pipe()
				must(t, err)
				cmd := exec.Command(program, args...)
				cmd.ExtraFiles = []*os.File{write}
				must(t, cmd.Start())
				must(t, write.Close())
				must(t, read.SetReadDeadline(time.Now().Add(timeout)))
				if _, err := io.ReadFull(read, make([]byte, 2)); err != nil {
					t.Error(err)
				}
				must(t, cmd.Process.Signal(s))
				if err := cmd.Wait(); err != nil {
					t.Fatalf("%v, want exit status 0", err)
				}
				must(t, read.Close())
			}
		})
	}
}

// TestClosedStandardError: a journal that went away must not take the port with it.
func TestClosedStandardError(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	frontend := freePort(t, "tcp", ours())
	status, report, err := os.Pipe()
	must(t, err)
	cmd := exec.Command(program, arguments("tcp", frontend, freePort(t, "tcp", ours()))...)
	cmd.Stderr, cmd.ExtraFiles = write, []*os.File{report}
	must(t, cmd.Start())
	must(t, report.Close())
	must(t, write.Close())
	_, err = io.ReadAll(status)
	must(t, err)
	must(t, status.Close())
	must(t, read.Close())
	for range 3 { // each fails at the backend, which is worth a line
		conn, err := net.Dial("tcp", frontend.String())
		if err != nil {
			continue // reset already
		}
		must(t, conn.SetDeadline(time.Now().Add(timeout)))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the client read a byte")
		}
		must(t, conn.Close())
	}
	must(t, cmd.Process.Signal(syscall.SIGUSR1)) // and so are the counters
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, want exit status 0", err)
	}
}
