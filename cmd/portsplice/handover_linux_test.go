package main

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestHandover is what dockerd 29 does with a port's socket (its package portallocator): it attaches a filter that drops
// all, binds, listens for TCP with the largest backlog, and takes the filter off just before it starts the proxy. What
// came in between waits in the socket, and is served. UDP has no SO_REUSEADDR.
func TestHandover(t *testing.T) {
	for _, engine := range engines {
		t.Run("tcp "+engine, func(t *testing.T) {
			fd, frontend := bindBehindFilter(t, unix.SOCK_STREAM)
			must(t, unix.Listen(fd, -1))
			must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
			var waiting []net.Conn
			for range 10 {
				conn := dial(t, "tcp", frontend)
				_, err := conn.Write([]byte("hello"))
				must(t, err)
				waiting = append(waiting, conn)
			}
			handOver(t, fd, arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine, "-use-listen-fd"))
			for _, conn := range waiting {
				expect(t, conn, "hello")
			}
		})
		t.Run("udp "+engine, func(t *testing.T) {
			fd, frontend := bindBehindFilter(t, unix.SOCK_DGRAM)
			must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
			early := dial(t, "udp", frontend)
			_, err := early.Write([]byte("which the filter drops"))
			must(t, err)
			must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
			var waiting []net.Conn
			for range 10 {
				conn := dial(t, "udp", frontend)
				_, err := conn.Write([]byte("hello"))
				must(t, err)
				waiting = append(waiting, conn)
			}
			p := handOver(t, fd, arguments("udp", frontend, echo(t, "udp", ours()), "-engine", engine, "-use-listen-fd"))
			for _, conn := range waiting {
				expect(t, conn, "hello")
			}
			p.signalled(t, syscall.SIGINT)
			// Nothing keeps the port: dockerd binds it again for the next container.
			again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(frontend))
			must(t, err)
			must(t, again.Close())
		})
	}
}

// bindBehindFilter gives a socket that is bound, and that a filter keeps all packets from.
func bindBehindFilter(t *testing.T, kind int) (int, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	must(t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]}))
	if kind == unix.SOCK_STREAM {
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: ours().As4()}))
	name, err := unix.Getsockname(fd)
	must(t, err)
	return fd, netip.AddrPortFrom(ours(), uint16(name.(*unix.SockaddrInet4).Port))
}

// handOver starts the program with the socket, which only it has then.
func handOver(t *testing.T, fd int, args []string) *process {
	t.Helper()
	socket := os.NewFile(uintptr(fd), "socket")
	p := run{args: args, socket: socket}.serve(t)
	must(t, socket.Close())
	return p
}

// expect reads a message that was sent before.
func expect(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := conn.Read(b); string(b[:n]) != want {
		rig.Check(t, err)
		t.Errorf("got %q, want %q", b[:n], want)
	}
}
