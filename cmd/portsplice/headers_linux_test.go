package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// headerFor is what the backend is to be told of a connection to the frontend.
func headerFor(conn net.Conn, frontend netip.AddrPort) string {
	client := conn.LocalAddr().(*net.TCPAddr)
	return fmt.Sprintf("PROXY TCP4 %v %v %d %d\r\n", client.IP, frontend.Addr(), client.Port, frontend.Port())
}

// TestProxyProtocolOnDockerdsSocket: who waited in a socket that dockerd opened is told of with the address that it had
// asked for, which is not the one that the socket is bound to, whether or not it has said something.
func TestProxyProtocolOnDockerdsSocket(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			fd, bound := bindBehindFilter(t, unix.SOCK_STREAM)
			must(t, unix.Listen(fd, -1))
			must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
			silent, eager := dial(t, "tcp", bound), dial(t, "tcp", bound)
			_, err := io.WriteString(eager, "hello")
			must(t, err)
			handOver(t, fd, arguments("tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), bound.Port()),
				echo(t, "tcp", ours()), "-engine", engine, "-use-listen-fd", "-proxy-protocol", "v1"))
			for _, test := range []struct {
				conn net.Conn
				want string
			}{{silent, headerFor(silent, bound)}, {eager, headerFor(eager, bound) + "hello"}} {
				got := make([]byte, len(test.want))
				if _, err := io.ReadFull(test.conn, got); string(got) != test.want {
					t.Errorf("the backend read %q, %v; want %q", got, err, test.want)
				}
			}
		})
	}
}

// TestProxyProtocolByTheWorker: the options are a port's own, from its shim's command line or environment; a header that
// is refused is counted and reported.
func TestProxyProtocolByTheWorker(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	plain, plainAddr := l.publish(t, "tcp", backend)
	frontend := freePort(t, "tcp", ours())
	p := l.run(run{
		args: arguments("tcp", frontend, backend, "-proxy-protocol", "v1"),
		env:  []string{"PORTSPLICE_ACCEPT_PROXY_PROTOCOL=127.0.0.0/8", "PORTSPLICE_LOCAL_BYPASS=auto"},
	}).serve(t)
	const told = "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"
	exchange(t, dial(t, "tcp", frontend), told+"hello")
	exchange(t, dial(t, "tcp", plainAddr), told+"hello")
	conn := dial(t, "tcp", frontend)
	_, err := io.WriteString(conn, "no header")
	must(t, err)
	if b, err := io.ReadAll(conn); len(b) > 0 || err == nil {
		t.Errorf("a client without a header got %q, %v; want a reset", b, err)
	}
	if n := p.count(t, "headers-refused"); n != 1 {
		t.Errorf("%d headers are refused, want 1", n)
	}
	if n := plain.count(t, "headers-refused"); n != 0 {
		t.Errorf("%d headers are refused at the other port, want none", n)
	}
	want := []string{
		"portsplice: -local-bypass auto: not here: clients that go around the proxy have no part in -proxy-protocol\n",
		fmt.Sprintf("portsplice: proxy header: client %v, backend %v: proxyproto: proxy protocol signature not present\n", conn.LocalAddr(), backend),
	}
	p.says(t, want...)
	if log := p.log(); len(log) != len(want) {
		t.Errorf("the log is %q, want %d lines", log, len(want))
	}
}

// TestProxyProtocolRefusals: what a header cannot be had with keeps the port from being served, with the reason.
func TestProxyProtocolRefusals(t *testing.T) {
	l := newLab(t)
	backend := netip.AddrPortFrom(ours(), 80)
	for _, r := range []run{{}, l.run(run{})} { // by itself, and by a worker
		for want, args := range map[string][]string{
			"-local-bypass require: clients that go around the proxy have no part in -proxy-protocol": arguments(
				"tcp", freePort(t, "tcp", ours()), backend, "-proxy-protocol", "v2", "-local-bypass", "require"),
			"-proxy-protocol: there is none for udp, only for tcp": arguments(
				"udp", freePort(t, "udp", ours()), backend, "-proxy-protocol", "v2"),
		} {
			r.args = args
			if p := r.start(t); !strings.HasPrefix(p.status, "1\n"+want) {
				t.Errorf("the status is %q, want 1 and %q", p.status, want)
			}
		}
	}
}
