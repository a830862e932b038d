//go:build linux && sctp_kernel

package sctp

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// runShim is run with the shim, which has a worker serve the port. The shim is beside the program.
func runShim(t *testing.T, files []*os.File, args ...string) *running {
	t.Helper()
	r := start(t, filepath.Join(filepath.Dir(*program), "portsplice-shim"), "0\n", files, args...)
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(target) != "portsplice-shim" {
		t.Fatalf("the port is served without a worker: %s", r.stderr.String())
	}
	return r
}

// bindAgain opens the socket of a port as dockerd does, with no option that lets two sockets have it.
func bindAgain(t *testing.T, front netip.AddrPort) (socket *os.File) {
	t.Helper()
	family, to, err := sockaddr(front)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		t.Fatal(err)
	}
	socket = os.NewFile(uintptr(fd), "listener")
	if err = unix.Bind(fd, to); err == nil {
		err = unix.Listen(fd, 256)
	}
	if err != nil {
		_ = socket.Close() // bind or listen is what failed
		t.Fatalf("%v: %v", front, err)
	}
	return socket
}

// echo has a message go to the backend, and one back.
func echo(client, server *peer) {
	client.t.Helper()
	for _, way := range []struct{ from, to *peer }{{client, server}, {server, client}} {
		m := newParcel(1000, 3)
		way.from.send(m)
		way.to.expect(m)
	}
}

// TestShimStops: SIGINT ends a port of the worker and its associations before the shim ends, so that the port can be bound
// again at once: by a shim, and by dockerd, which hands its socket over.
func TestShimStops(t *testing.T) {
	const rounds = 40
	for _, adopted := range []bool{false, true} {
		t.Run(fmt.Sprintf("adopted=%t", adopted), func(t *testing.T) {
			backend, at := listen(t, "127.0.0.1", 10)
			front := freePort(t, "127.0.0.1")
			for range rounds {
				var r *running
				if adopted {
					socket := bindAgain(t, front)
					r = runShim(t, []*os.File{socket}, arguments(front, at, "-use-listen-fd")...)
					_ = socket.Close() // the shim has its own
				} else {
					r = runShim(t, nil, arguments(front, at)...)
				}
				client := dial(t, front, 10)
				server := backend.accept()
				echo(client, server)
				r.endsAfter(unix.SIGINT)
				client.expectEnd(unix.ECONNRESET)
				server.expectEnd(unix.ECONNRESET)
				client.close()
				server.close()
			}
			_ = bindAgain(t, front).Close() // nothing came of it
		})
	}
}

// TestShimTerminated: when dockerd has ended, the port takes no more clients, associations live on, and another shim may
// serve the port beside them.
func TestShimTerminated(t *testing.T) {
	backend, at := listen(t, "127.0.0.1", 10)
	front := freePort(t, "127.0.0.1")
	r := runShim(t, nil, arguments(front, at)...)
	client := dial(t, front, 10)
	server := backend.accept()
	echo(client, server)
	r.leaves(unix.SIGTERM)
	newPeer(t, unix.AF_INET, 10).expectRefusal(front)
	echo(client, server)

	r = runShim(t, nil, arguments(front, at)...)
	next := dial(t, front, 10)
	nextServer := backend.accept()
	echo(next, nextServer)
	echo(client, server)
	r.endsAfter(unix.SIGINT)
	next.expectEnd(unix.ECONNRESET)
	echo(client, server)
	client.shutdown()
	server.expectEnd(io.EOF)
}

// TestShimOfDockerdsSocketTerminated: dockerd 29 binds SCTP ports without SO_REUSEADDR, so it could not bind one anew while
// associations live, and the container would be unreachable. They end.
func TestShimOfDockerdsSocketTerminated(t *testing.T) {
	backend, at := listen(t, "127.0.0.1", 10)
	front := freePort(t, "127.0.0.1")
	socket := bindAgain(t, front)
	r := runShim(t, []*os.File{socket}, arguments(front, at, "-use-listen-fd")...)
	_ = socket.Close() // the shim has its own
	client := dial(t, front, 10)
	server := backend.accept()
	echo(client, server)
	r.leaves(unix.SIGTERM)
	_ = bindAgain(t, front).Close() // nothing came of it
	client.expectEnd(unix.ECONNRESET)
	server.expectEnd(unix.ECONNRESET)
}

// leaves sends the signal and waits for the shim's end. Its standard error is the worker's while associations live.
func (r *running) leaves(s syscall.Signal) {
	r.t.Helper()
	err := r.Process.Signal(s)
	if err == nil {
		_, err = r.Process.Wait()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestWorkerKilled: a worker that dies takes no SCTP port along, whoever bound it. Clients that come meanwhile are served.
func TestWorkerKilled(t *testing.T) {
	backend, at := listen(t, "127.0.0.1", 10)
	own, dockerds := freePort(t, "127.0.0.1"), freePort(t, "127.0.0.1")
	socket := bindAgain(t, dockerds)
	shims := []*running{
		runShim(t, nil, arguments(own, at)...),
		runShim(t, []*os.File{socket}, arguments(dockerds, at, "-use-listen-fd")...),
	}
	_ = socket.Close() // the shim has its own
	for range 2 {      // a third death within ten seconds is for the shims to serve by themselves
		before := worker(t)
		if err := unix.Kill(before, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, front := range []netip.AddrPort{own, dockerds} {
			client := dial(t, front, 10)
			echo(client, backend.accept())
		}
		if worker(t) == before {
			t.Fatal("the worker lives")
		}
	}
	for _, r := range shims {
		r.endsAfter(unix.SIGINT)
	}
}

// worker is the process that serves the ports.
func worker(t *testing.T) (pid int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if b, err := os.ReadFile(line); err == nil && string(b) == *program+"\x00worker\x00" {
			if pid, err = strconv.Atoi(filepath.Base(filepath.Dir(line))); err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("there is no worker")
	return 0
}
