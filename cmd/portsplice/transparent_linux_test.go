package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// routed is a client, a host and a container, each in a namespace of its own, and each in both families.
type routed struct {
	client, host, container *netlab.Namespace
}

var (
	outside = []netip.Prefix{netip.MustParsePrefix("198.18.1.1/24"), netip.MustParsePrefix("fd00:1::1/64")}
	clients = []netip.Prefix{netip.MustParsePrefix("198.18.1.2/24"), netip.MustParsePrefix("fd00:1::2/64")}
	inside  = []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24"), netip.MustParsePrefix("fd00::1/64")}
	backs   = []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
)

// families are the places of each in these.
var families = map[string]int{"v4": 0, "v6": 1}

func newRouted(t *testing.T) routed {
	t.Helper()
	n := routed{rig.Namespace(t), rig.Namespace(t), rig.Namespace(t)}
	for _, each := range []*netlab.Namespace{n.client, n.host, n.container} {
		must(t, each.Sysctl("ipv6/conf/default/accept_dad", "0")) // its link-local addresses are ready at once, as neighbours need
	}
	must(t, netlab.Cable("outside", n.host, outside[0], n.client, clients[0]))
	must(t, netlab.Cable("inside", n.host, inside[0], n.container, backs[0]))
	must(t, n.host.Up("outside", outside[1]))
	must(t, n.host.Up("inside", inside[1]))
	must(t, n.client.Up("outside", clients[1]))
	must(t, n.container.Up("inside", backs[1]))
	shell(t, n.container, "ip route add default via 198.18.0.1 && ip -6 route add default via fd00::1")
	// As docker has it; without them the answers would not even begin to be forwarded.
	must(t, n.host.Sysctl("ipv4/ip_forward", "1"))
	must(t, n.host.Sysctl("ipv6/conf/all/forwarding", "1"))
	must(t, n.host.Sysctl("ipv4/conf/all/rp_filter", "1")) // strict
	return n
}

// shell runs commands in a namespace.
func shell(t *testing.T, in *netlab.Namespace, commands string) {
	t.Helper()
	must(t, in.Do(func() error {
		out, err := exec.Command("sh", "-ec", commands).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", commands, err, out)
		}
		return nil
	}))
}

// documented gives the block of commands in docs/client-addresses.md that begins so.
func documented(t *testing.T, begin string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/client-addresses.md")
	must(t, err)
	_, block, found := strings.Cut(string(page), "```sh\n"+begin)
	commands, _, ended := strings.Cut(block, "```")
	if !found || !ended {
		t.Fatalf("the page has no block that begins with %q", begin)
	}
	return begin + commands
}

// tells runs a backend that answers a line with the address that it comes from, and the line.
func (n routed) tells(t *testing.T, protocol string, on netip.Addr) (backend netip.AddrPort) {
	t.Helper()
	must(t, n.container.Do(func() error {
		if protocol == "udp" {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
			must(t, err)
			t.Cleanup(func() { must(t, conn.Close()) })
			go func() {
				for b := make([]byte, 1<<16); ; {
					length, from, err := conn.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					_, _ = conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%v %s", from.Addr(), b[:length]), from) // the client notices
				}
			}()
			backend = conn.LocalAddr().(*net.UDPAddr).AddrPort()
			return nil
		}
		backend = rig.Serve(t, rig.Listen(t, on), func(conn *net.TCPConn) {
			from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			for lines := bufio.NewReader(conn); ; {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(conn, "%v %s", from, line) // the client notices
			}
		})
		return nil
	}))
	return backend
}

// publish serves a port of the host, on all addresses of a family.
func (n routed) publish(t *testing.T, protocol string, on netip.Addr, backend netip.AddrPort, more ...string) (*process, uint16) {
	t.Helper()
	const port = 3005 // in a namespace of its own
	var p *process
	must(t, n.host.Do(func() error {
		more = append([]string{"-transparent", "on"}, more...)
		p = run{args: arguments(protocol, netip.AddrPortFrom(on, port), backend, more...)}.start(t)
		return nil
	}))
	return p, port
}

// ask connects from a namespace, sends a line and gives what the backend tells of it.
func ask(t *testing.T, in *netlab.Namespace, protocol string, to netip.AddrPort, line string) (answer string) {
	t.Helper()
	must(t, in.Do(func() error {
		conn := dial(t, protocol, to)
		_, err := fmt.Fprintln(conn, line)
		must(t, err)
		answer, err = bufio.NewReader(conn).ReadString('\n')
		return err
	}))
	return strings.TrimSuffix(answer, "\n")
}

// TestTransparent runs the commands that docs/client-addresses.md has: with them a backend sees its clients, by either
// protocol and family, and answers them through the engine; without them a port is refused, and one that is served resets
// its clients.
func TestTransparent(t *testing.T) {
	for name, begin := range map[string]string{"nftables": "nft add table", "iptables": "iptables -t mangle"} {
		t.Run(name, func(t *testing.T) {
			n := newRouted(t)
			for _, protocol := range []string{"tcp", "udp"} {
				for family, i := range families {
					backend := n.tells(t, protocol, backs[i].Addr())
					p, _ := n.publish(t, protocol, anyOf(i), backend)
					if want := "1\n-transparent: no rule of ip-rule(8) has"; !strings.HasPrefix(p.status, want) {
						t.Errorf("%s %s without a rule: the status is %q, want %q", protocol, family, p.status, want)
					}
				}
			}
			shell(t, n.host, documented(t, begin))
			for _, protocol := range []string{"tcp", "udp"} {
				for family, i := range families {
					t.Run(protocol+" "+family, func(t *testing.T) { testTransparent(t, n, protocol, i) })
				}
			}
			p, port := n.publish(t, "tcp", anyOf(0), n.tells(t, "tcp", backs[0].Addr()), "-dial-timeout", "1s")
			marks, rules, _ := strings.Cut(documented(t, "nft delete table"), "\n")
			if name == "iptables" {
				first, _, _ := strings.Cut(documented(t, begin), "ip rule")
				marks = strings.ReplaceAll(first, " -A ", " -D ")
			}
			shell(t, n.host, marks)
			shell(t, n.host, rules)
			must(t, n.client.Do(func() error {
				rig.WantReset(t, netip.AddrPortFrom(outside[0].Addr(), port))
				return nil
			}))
			if n := p.count(t, "dial-timeouts"); n != 1 {
				t.Errorf("%d dials have timed out without the commands, want 1", n)
			}
		})
	}
}

func anyOf(family int) netip.Addr {
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[family]
}

func testTransparent(t *testing.T, n routed, protocol string, family int) {
	backend := n.tells(t, protocol, backs[family].Addr())
	p, port := n.publish(t, protocol, anyOf(family), backend)
	if p.status != "0\n" {
		t.Fatalf("the status is %q", p.status)
	}
	long := strings.Repeat("x", 1<<20) // of which some is spliced
	if protocol == "udp" {
		long = long[:1000]
	}
	loopback := netip.MustParseAddr([]string{"127.0.0.1", "::1"}[family])
	for _, test := range []struct {
		from *netlab.Namespace
		to   netip.Addr
		want netip.Addr
	}{
		{n.client, outside[family].Addr(), clients[family].Addr()},
		{n.host, loopback, inside[family].Addr()},
		{n.host, inside[family].Addr(), inside[family].Addr()},
		{n.host, outside[family].Addr(), outside[family].Addr()},
	} {
		if got, want := ask(t, test.from, protocol, netip.AddrPortFrom(test.to, port), long), test.want.String()+" "+long; got != want {
			t.Errorf("a client of %v: the backend answers %.60q, want %.60q", test.to, got, want)
		}
	}
	engine := map[string]string{"tcp": "splice", "udp": "udp"}[protocol]
	if c := p.counters(t); c["engine"] != engine || protocol == "tcp" && c["spliced"] == "0" || c["source-refused"] != "0" {
		t.Errorf("the counters are %v", c)
	}
	// A neighbour: the container itself.
	to := netip.AddrPortFrom(inside[family].Addr(), port)
	must(t, n.container.Do(func() error {
		if protocol == "tcp" {
			rig.WantReset(t, to)
			return nil
		}
		_, err := fmt.Fprintln(dial(t, protocol, to), "hello")
		return err
	}))
	until(t, "the neighbour is refused", func() bool { return p.count(t, "source-refused") == 1 })
	p.says(t, "it is on the container's own network")
	p.signalled(t, 15)
}

// TestTransparentOtherFamily: clients of the family that the container has not are refused, and the log says so at the
// start; those of this host are served.
func TestTransparentOtherFamily(t *testing.T) {
	n := newRouted(t)
	shell(t, n.host, documented(t, "nft add table"))
	p, port := n.publish(t, "tcp", anyOf(1), n.tells(t, "tcp", backs[0].Addr()))
	must(t, n.client.Do(func() error {
		rig.WantReset(t, netip.AddrPortFrom(outside[1].Addr(), port))
		return nil
	}))
	if got, want := ask(t, n.host, "tcp", netip.AddrPortFrom(netip.IPv6Loopback(), port), "x"), "198.18.0.1 x"; got != want {
		t.Errorf("the backend answers %q, want %q", got, want)
	}
	if got := p.count(t, "source-refused"); got != 1 {
		t.Errorf("%d clients are refused, want 1", got)
	}
	p.says(t, fmt.Sprintf("-transparent: clients of [::]:%d, but for this host, are refused", port), "transparent: client [fd00:1::2]:")
}

// TestTransparentAndValidMarks: with src_valid_mark answers are martians by the rule that is documented, which the log tells at the
// start, and none by one for what comes from the container's network.
func TestTransparentAndValidMarks(t *testing.T) {
	n := newRouted(t)
	commands := documented(t, "nft add table")
	shell(t, n.host, commands)
	must(t, n.host.Sysctl("ipv4/conf/all/src_valid_mark", "1"))
	backend := n.tells(t, "tcp", backs[0].Addr())
	p, port := n.publish(t, "tcp", anyOf(0), backend, "-dial-timeout", "1s")
	to := netip.AddrPortFrom(outside[0].Addr(), port)
	must(t, n.client.Do(func() error {
		rig.WantReset(t, to)
		return nil
	}))
	p.says(t, "seem to be forwarded", "invalid argument")
	p.signalled(t, 15)
	shell(t, n.host, documented(t, "nft delete table"))
	shell(t, n.host, strings.ReplaceAll(commands, "rule add fwmark", "rule add iif inside fwmark"))
	p, _ = n.publish(t, "tcp", anyOf(0), backend)
	if got, want := ask(t, n.client, "tcp", to, "x"), clients[0].Addr().String()+" x"; got != want {
		t.Errorf("the backend answers %q, want %q", got, want)
	}
	if log := p.log(); len(log) > 0 {
		t.Errorf("the log is %q, want nothing", log)
	}
}

// TestTransparentBehindABalancer: the backend sees whom the PROXY header of a trusted client tells of, also if it is to
// have a header of its own. A header that tells of a client that would look like this host is refused.
func TestTransparentBehindABalancer(t *testing.T) {
	n := newRouted(t)
	shell(t, n.host, documented(t, "nft add table"))
	p, port := n.publish(t, "tcp", anyOf(0), n.tells(t, "tcp", backs[0].Addr()),
		"-accept-proxy-protocol", clients[0].Addr().String(), "-proxy-protocol", "v1")
	to := netip.AddrPortFrom(outside[0].Addr(), port)
	const header = "PROXY TCP4 203.0.113.7 198.18.1.1 1234 443\r"
	if got, want := ask(t, n.client, "tcp", to, header), "203.0.113.7 "+header; got != want {
		t.Errorf("the backend answers %q, want %q", got, want)
	}
	must(t, n.client.Do(func() error {
		for _, address := range []string{"127.0.0.1", inside[0].Addr().String()} {
			conn := dial(t, "tcp", to)
			_, err := fmt.Fprintf(conn, "PROXY TCP4 %s 198.18.1.1 1234 443\r\nx\n", address)
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(timeout)))
			if b, err := bufio.NewReader(conn).ReadString('\n'); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a client that is told of as %s got %q, %v; want a reset", address, b, err)
			}
		}
		return nil
	}))
	if got := p.count(t, "headers-refused"); got != 2 {
		t.Errorf("%d headers are refused, want 2", got)
	}
}

// TestTransparentRefusals: what cannot be transparent keeps a port from being served, with the reason.
func TestTransparentRefusals(t *testing.T) {
	n := newRouted(t)
	shell(t, n.host, documented(t, "nft add table"))
	backend := netip.AddrPortFrom(backs[0].Addr(), 80)
	on := []string{"-transparent", "on"}
	for want, r := range map[string]run{
		"-transparent: not for sctp":             {args: arguments("sctp", netip.AddrPortFrom(anyOf(0), 3005), backend, on...)},
		"-transparent: not by -engine fallback":  {args: arguments("udp", netip.AddrPortFrom(anyOf(0), 3005), backend, append(on, "-engine", "fallback")...)},
		"-local-bypass require: clients that go": {args: arguments("tcp", netip.AddrPortFrom(anyOf(0), 3005), backend, append(on, "-local-bypass", "require")...)},
		"splice: backend: transparent: setsockopt IP_TRANSPARENT: operation not permitted": {
			args: arguments("tcp", netip.AddrPortFrom(anyOf(0), 3005), backend, on...), user: 65534},
		"udp: transparent: setsockopt IP_TRANSPARENT: operation not permitted": {
			args: arguments("udp", netip.AddrPortFrom(anyOf(0), 3005), backend, on...), user: 65534},
	} {
		must(t, n.host.Do(func() error {
			if p := r.start(t); !strings.HasPrefix(p.status, "1\n"+want) {
				t.Errorf("the status is %q, want 1 and %q", p.status, want)
			}
			return nil
		}))
	}
}

// TestTransparentByTheNextWorker: a port that was served goes on where the rule has gone when its worker has died, as nobody
// would hear that it is refused: its clients are reset, and served when the rule is there again.
func TestTransparentByTheNextWorker(t *testing.T) {
	n, l := newRouted(t), newLab(t)
	add, remove := documented(t, "nft add table"), documented(t, "nft delete table")
	shell(t, n.host, add)
	frontend, backend := netip.AddrPortFrom(outside[0].Addr(), 3005), n.tells(t, "tcp", backs[0].Addr())
	var p *process
	must(t, n.host.Do(func() error {
		p = l.run(run{args: arguments("tcp", frontend, backend, "-transparent", "on", "-dial-timeout", "3s")}).serve(t)
		return nil
	}))
	served := func() {
		t.Helper()
		if got, want := ask(t, n.client, "tcp", frontend, "x"), clients[0].Addr().String()+" x"; got != want {
			t.Errorf("the backend answers %q, want %q", got, want)
		}
	}
	served()
	shell(t, n.host, remove)
	must(t, syscall.Kill(l.worker(t), syscall.SIGKILL))
	must(t, n.client.Do(func() error {
		rig.WantReset(t, frontend)
		return nil
	}))
	p.says(t, "transparent: backend 198.18.0.2:", "no rule of ip-rule(8)")
	shell(t, n.host, add)
	served()
	if p.alone(t) {
		t.Error("the port is served without a worker")
	}
}
