package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestReaches: who is reached at which address of a published port, and what the client learns of its ends.
func TestReaches(t *testing.T) {
	l := newLab(t)
	other4, alias := netip.MustParseAddr("127.9.9.9"), netip.MustParseAddr("198.18.7.7")
	rig.Must(t, l.host.Up("lo", netip.PrefixFrom(alias, 32)))
	rig.Until(t, "the new address is known", func() bool {
		var v uint32
		return l.table.maps.addresses.Lookup(addressKey{l.table.cookie, alias.As16()}, &v) == nil
	})
	const container = "container"
	for _, test := range []struct {
		name            string
		published, asks netip.Addr
		backend         netip.Addr
		v6              bool
		want            string
		peer, local     netip.Addr // zero: what was asked; whatever it is
	}{
		{"loopback", loopback4, loopback4, container4, false, container, netip.Addr{}, loopback4},
		{"another loopback address", loopback4, other4, container4, false, "", netip.Addr{}, netip.Addr{}},
		{"wildcard, loopback", any4, loopback4, container4, false, container, netip.Addr{}, loopback4},
		{"wildcard, another loopback address", any4, other4, container4, false, container, netip.Addr{}, loopback4},
		{"wildcard, host", any4, host4, container4, false, container, netip.Addr{}, host4},
		{"wildcard, new address", any4, alias, container4, false, container, netip.Addr{}, host4},
		{"wildcard, wildcard", any4, any4, container4, false, container, loopback4, loopback4},
		{"host", host4, host4, container4, false, container, netip.Addr{}, host4},
		{"host, loopback", host4, loopback4, container4, false, "", netip.Addr{}, netip.Addr{}},
		{"mapped loopback", loopback4, loopback4, container4, true, container, mapped(loopback4), mapped(loopback4)},
		{"wildcard, mapped host", any4, host4, container4, true, container, mapped(host4), mapped(host4)},
		{"wildcard, mapped loopback", any4, other4, container4, true, container, mapped(other4), mapped(loopback4)},
		{"wildcard, mapped wildcard", any4, any4, container4, true, container, mapped(loopback4), mapped(loopback4)},
		{"IPv6 loopback", loopback6, loopback6, container6, true, container, netip.Addr{}, loopback6},
		{"IPv6 wildcard, loopback", any6, loopback6, container6, true, container, netip.Addr{}, loopback6},
		{"IPv6 wildcard, wildcard", any6, any6, container6, true, container, loopback6, loopback6},
		{"IPv6 wildcard, host", any6, host6, container6, true, container, netip.Addr{}, host6},
		{"IPv6 host", host6, host6, container6, true, container, netip.Addr{}, host6},
		{"IPv6 to IPv4", any6, loopback6, container4, true, container, netip.Addr{}, loopback6},
		{"IPv6 to IPv4, host", any6, host6, container4, true, container, netip.Addr{}, mapped(host4)},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := l.publish(t, test.published, test.backend)
			defer func() { rig.Check(t, e.Remove()) }()
			a, err := client{v6: test.v6}.ask(l.host, netip.AddrPortFrom(test.asks, port))
			if test.want == "" {
				if !errors.Is(err, unix.ECONNREFUSED) || e.Bypassed() != 0 {
					t.Errorf("got %+v, %v and %d bypassed; want that nobody listens there", a, err, e.Bypassed())
				}
				return
			}
			rig.Must(t, err)
			if test.peer == (netip.Addr{}) {
				test.peer = test.asks
			}
			if a.name != test.want || a.peer != netip.AddrPortFrom(test.peer, port) || a.local.Addr() != test.local {
				t.Errorf("got %+v, want %s at %v, from %v", a, test.want, test.peer, test.local)
			}
			if seen := map[netip.Addr]netip.Addr{container4: host4, container6: host6}[test.backend]; a.seen != seen {
				t.Errorf("the container sees a client at %v, want %v", a.seen, seen)
			}
			if got := e.Bypassed(); got != 1 {
				t.Errorf("%d connections were counted, want 1", got)
			}
		})
	}
}

// TestElsewhere: a port on all addresses is none of an address that the host has not, or has no longer.
func TestElsewhere(t *testing.T) {
	l := newLab(t)
	serve(t, l.container, "elsewhere", netip.AddrPortFrom(container4, port))
	e := l.publish(t, any4, netip.MustParseAddr("198.18.0.3")) // where nobody is
	to := netip.AddrPortFrom(container4, port)
	a, err := client{}.ask(l.host, to)
	rig.Must(t, err)
	if a.name != "elsewhere" || a.peer != to || e.Bypassed() != 0 {
		t.Errorf("got %+v and %d bypassed", a, e.Bypassed())
	}
	known := func(a netip.Addr) bool {
		var v uint32
		return l.table.maps.addresses.Lookup(addressKey{l.table.cookie, a.As16()}, &v) == nil
	}
	last := netip.MustParseAddr("198.18.7.9") // the news come in their order
	rig.Must(t, l.host.Up("lo", netip.PrefixFrom(host4, 32)))
	rig.Must(t, l.host.RemoveAddress("eth", netip.PrefixFrom(host4, 30)))
	rig.Must(t, l.host.Up("lo", netip.PrefixFrom(last, 32)))
	rig.Until(t, "the news are heard", func() bool { return known(last) })
	if !known(host4) {
		t.Error("an address that another interface has is forgotten")
	}
	rig.Must(t, l.host.RemoveAddress("lo", netip.PrefixFrom(host4, 32)))
	rig.Until(t, "the address is forgotten", func() bool { return !known(host4) })
}

// TestTakesTheProxy: what cannot be the connection that the proxy would make is left alone.
func TestTakesTheProxy(t *testing.T) {
	l := newLab(t)
	l.proxied(t, any4)
	l.proxied(t, loopback6)
	four, six := l.publish(t, any4, container4), l.publish(t, any6, container4)
	bind := func(to netip.Addr) func(int) error {
		return func(fd int) error { return unix.Bind(fd, sockaddr(netip.AddrPortFrom(to, 0))) }
	}
	for _, test := range []struct {
		name string
		client
		asks netip.Addr
	}{
		{"bound to loopback", client{prepare: bind(loopback4)}, loopback4},
		{"bound to the host", client{prepare: bind(host4)}, host4},
		{"bound without a port", client{prepare: func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), bind(loopback4)(fd))
		}}, loopback4},
		{"bound to an interface", client{prepare: func(fd int) error {
			return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo")
		}}, loopback4},
		{"marked", client{prepare: func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 7)
		}}, loopback4},
		{"TCP_FASTOPEN_CONNECT", client{prepare: option(unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT), connect: connectWrite}, loopback4},
		{"TCP_FASTOPEN_CONNECT over IPv6", client{v6: true, prepare: option(unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT),
			connect: connectWrite}, loopback6},
		{"MPTCP", client{protocol: unix.IPPROTO_MPTCP}, loopback4},
		{"MPTCP over IPv6", client{v6: true, protocol: unix.IPPROTO_MPTCP}, loopback6},
		{"IPv6, bound to loopback", client{v6: true, prepare: bind(loopback6)}, loopback6},
		{"IPv6, bound to mapped loopback", client{v6: true, prepare: bind(mapped(loopback4))}, mapped(loopback4)},
		{"IPv6, bound to a port", client{v6: true, prepare: bind(any6)}, loopback6}, // which cannot be bound to IPv4 any more
		{"IPv6 only", client{v6: true, prepare: option(unix.SOL_IPV6, unix.IPV6_V6ONLY)}, loopback6},
	} {
		t.Run(test.name, func(t *testing.T) {
			to := netip.AddrPortFrom(test.asks, port)
			a, err := test.ask(l.host, to)
			rig.Must(t, err)
			if a.name != "proxy" || a.peer != to || a.local.Addr() != test.asks {
				t.Errorf("got %+v, want the proxy, whose address is %v", a, to)
			}
			if n := four.Bypassed() + six.Bypassed(); n != 0 {
				t.Errorf("%d connections were bypassed", n)
			}
		})
	}
}

// TestUDP: a UDP socket reaches what it asks for, though TCP's port of that number is bypassed.
func TestUDP(t *testing.T) {
	l := newLab(t)
	e := l.publish(t, any4, container4)
	to := netip.AddrPortFrom(loopback4, port)
	rig.Must(t, l.host.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }() // nothing was sent
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			return err
		}
		peer, local, err := names(fd)
		if peer != to || local.Addr() != loopback4 || e.Bypassed() != 0 {
			t.Errorf("the socket is connected to %v from %v, and %d were bypassed", peer, local, e.Bypassed())
		}
		return err
	}))
}

// TestWaysToConnect: however a client connects, it reaches the container and is told what it asked for.
func TestWaysToConnect(t *testing.T) {
	l := newLab(t)
	rig.Must(t, l.container.Sysctl("ipv4/tcp_fastopen", "3"))
	e := l.publish(t, loopback4, container4)
	for _, test := range []struct {
		name string
		client
	}{
		{"connect", client{}},
		{"without waiting", client{connect: connectLater}},
		{"bound to a port", client{prepare: func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{}) }}},
		{"IP_BIND_ADDRESS_NO_PORT", client{prepare: option(unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT)}},
		{"MSG_FASTOPEN", client{connect: func(fd int, to unix.Sockaddr) error {
			return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, to)
		}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 3 { // the first fetches a cookie
				before := e.Bypassed()
				to := netip.AddrPortFrom(loopback4, port)
				a, err := test.ask(l.host, to)
				rig.Must(t, err)
				if a.name != "container" || a.peer != to || a.local.Addr() != loopback4 {
					t.Errorf("got %+v, want the container, as %v", a, to)
				}
				if n := e.Bypassed() - before; n != 1 {
					t.Errorf("%d connections were counted, want 1", n)
				}
			}
		})
	}
}

// TestFastOpenReplaced: a socket of TCP_FASTOPEN_CONNECT that has a cookie of the backend's address asks for a connection
// with its first byte, when the port may be another container's. It takes the proxy. Without CAP_PERFMON it is not known,
// and the address is that of its connect().
func TestFastOpenReplaced(t *testing.T) {
	l := newLab(t)
	rig.Must(t, l.container.Sysctl("ipv4/tcp_fastopen", "3"))
	l.proxied(t, loopback4)
	fast := option(unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT)
	for range 2 { // the first fetches the cookie
		_, err := client{prepare: fast, connect: connectWrite}.ask(l.host, netip.AddrPortFrom(container4, l.backend))
		rig.Must(t, err)
	}
	for want, capabilities := range map[string][]uint{
		"proxy":     {unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON},
		"container": {unix.CAP_BPF, unix.CAP_NET_ADMIN},
	} {
		rig.Must(t, l.table.Close())
		rig.Must(t, l.host.Do(func() error {
			return with(func() (err error) {
				l.table, err = Attach()
				return err
			}, capabilities...)
		}))
		e := l.publish(t, loopback4, container4)
		a, err := client{prepare: fast, connect: func(fd int, to unix.Sockaddr) error {
			if err := unix.Connect(fd, to); err != nil {
				return err
			}
			err := e.Remove() // and now the container may have another's address
			_, failed := unix.Write(fd, []byte("x"))
			return errors.Join(err, failed)
		}}.ask(l.host, netip.AddrPortFrom(loopback4, port))
		if err != nil || a.name != want {
			t.Errorf("got %+v, %v; want the %s", a, err, want)
		}
	}
}

// TestPendingReplaced: a connect that the container has not answered when its port goes ends then. Who comes next at the
// container's address gets those only that were meant for others.
func TestPendingReplaced(t *testing.T) {
	l := newLab(t)
	backend, end := l.silent(t)
	first, second := netip.AddrPortFrom(loopback4, port), netip.AddrPortFrom(loopback4, port+1)
	e, err := l.table.Add(first, backend)
	rig.Must(t, err)
	_, err = l.table.Add(second, backend)
	rig.Must(t, err)
	asked := []netip.AddrPort{first, second, backend}
	sockets := make([]int, len(asked))
	for i, to := range asked {
		rig.Must(t, l.host.Do(func() (err error) {
			if sockets[i], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return ask(sockets[i], sockaddr(to))
		}))
		defer func() { rig.Check(t, unix.Close(sockets[i])) }()
	}
	rig.Must(t, l.host.Do(func() error { return with(e.Remove) })) // without capabilities
	end()
	serve(t, l.container, "another", backend)
	if err := answered(sockets[0]); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the port's client got %v, want ECONNABORTED", err)
	}
	for i, fd := range sockets[1:] {
		rig.Must(t, answered(fd))
		if a, err := hear(fd); err != nil || a.name != "another" {
			t.Errorf("who asked for %v got %+v, %v", asked[1+i], a, err)
		}
	}
}

// TestRefused: a container that does not listen is known at connect.
func TestRefused(t *testing.T) {
	l := newLab(t)
	l.proxied(t, loopback4)
	_, err := l.table.Add(netip.AddrPortFrom(loopback4, port), netip.AddrPortFrom(container4, 1))
	rig.Must(t, err)
	for _, c := range []client{{}, {connect: connectLater}} {
		if _, err := c.ask(l.host, netip.AddrPortFrom(loopback4, port)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("got %v, want ECONNREFUSED", err)
		}
	}
}

// TestSocketForgets: a socket that connects elsewhere after a bypassed connect tells of that.
func TestSocketForgets(t *testing.T) {
	l := newLab(t)
	_, err := l.table.Add(netip.AddrPortFrom(loopback4, port), netip.AddrPortFrom(container4, 1))
	rig.Must(t, err)
	to := netip.AddrPortFrom(container4, l.backend)
	a, err := client{connect: func(fd int, to unix.Sockaddr) error {
		if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(loopback4, port))); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the first connect: %v, want ECONNREFUSED", err)
		}
		if name, err := unix.Getsockname(fd); err != nil || !addrPort(name).Addr().IsUnspecified() {
			t.Errorf("unconnected, the socket is at %v, %v", name, err)
		}
		return unix.Connect(fd, to)
	}}.ask(l.host, to)
	rig.Must(t, err)
	if a.name != "container" || a.peer != to || a.local.Addr() != host4 {
		t.Errorf("got %+v, want the container at %v", a, to)
	}
}

// TestConnectAgain: an IPv6 socket may try a container of IPv4 again and again. When the port has gone it gets an error
// at once: the kernel has no way back to IPv6 for such a socket.
func TestConnectAgain(t *testing.T) {
	l := newLab(t)
	l.proxied(t, loopback6)
	e, err := l.table.Add(netip.AddrPortFrom(any6, port), netip.AddrPortFrom(container4, 1))
	rig.Must(t, err)
	_, err = client{v6: true, connect: func(fd int, to unix.Sockaddr) error {
		for range 3 {
			if err := unix.Connect(fd, to); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connect: %v, want ECONNREFUSED", err)
			}
		}
		rig.Check(t, e.Remove())
		return unix.Connect(fd, to)
	}}.ask(l.host, netip.AddrPortFrom(loopback6, port))
	if !errors.Is(err, unix.EAFNOSUPPORT) || e.Bypassed() != 3 {
		t.Errorf("got %v after %d bypassed connects, want EAFNOSUPPORT after 3", err, e.Bypassed())
	}
}

// TestOtherNamespace: what is published here is not published in another namespace, whose loopback is its own.
func TestOtherNamespace(t *testing.T) {
	l := newLab(t)
	serve(t, l.container, "own", netip.AddrPortFrom(any4, port))
	e := l.publish(t, any4, netip.MustParseAddr("198.18.0.3"))
	for _, asks := range []netip.Addr{loopback4, container4} {
		if a, err := (client{}).ask(l.container, netip.AddrPortFrom(asks, port)); err != nil || a.name != "own" {
			t.Errorf("a client in the container got %+v, %v", a, err)
		}
	}
	if n := e.Bypassed(); n != 0 {
		t.Errorf("%d connections were bypassed", n)
	}
}

// TestRemove: a port that has gone is the proxy's. One that has been replaced is not taken out by the one before, whose
// count stays what it was.
func TestRemove(t *testing.T) {
	l := newLab(t)
	l.proxied(t, any4)
	ask := func() string {
		a, err := client{}.ask(l.host, netip.AddrPortFrom(loopback4, port))
		rig.Must(t, err)
		return a.name
	}
	first := l.publish(t, any4, container4)
	got := []string{ask(), ask()}
	second := l.publish(t, any4, container4)
	rig.Must(t, first.Remove())
	got = append(got, ask())
	rig.Must(t, second.Remove())
	rig.Must(t, second.Remove())
	got = append(got, ask())
	for i, want := range []string{"container", "container", "container", "proxy"} {
		if got[i] != want {
			t.Errorf("connection %d reached the %s, want the %s", i, got[i], want)
		}
	}
	if second.Bypassed() != 1 {
		t.Errorf("the second port counted %d connections, want 1", second.Bypassed())
	}
}

// TestClose: without the table all is the proxy's, and connections that exist stay what they are.
func TestClose(t *testing.T) {
	l := newLab(t)
	l.proxied(t, any4)
	table := l.attach(t)
	_, err := table.Add(netip.AddrPortFrom(any4, port), netip.AddrPortFrom(container4, l.backend))
	rig.Must(t, err)
	to := netip.AddrPortFrom(loopback4, port)
	a, err := client{connect: func(fd int, to unix.Sockaddr) error {
		return errors.Join(unix.Connect(fd, to), table.Close())
	}}.ask(l.host, to)
	rig.Must(t, err)
	if a.name != "container" {
		t.Errorf("got %+v, want the container", a)
	}
	if a, err := (client{}).ask(l.host, to); err != nil || a.name != "proxy" {
		t.Errorf("after the end got %+v, %v; want the proxy", a, err)
	}
}

// TestPortsThatCannot: the reason names the port.
func TestPortsThatCannot(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct{ frontend, backend, want string }{
		{"[fe80::1%eth]:1", "[fd00::2]:1", "[fe80::1%eth]:1 to [fd00::2]:1: link-local addresses are not bypassed"},
		{"127.0.0.1:1", "[fd00::2]:1", "127.0.0.1:1 to [fd00::2]:1: an IPv4 socket reaches no IPv6 backend"},
	} {
		_, err := l.table.Add(netip.MustParseAddrPort(test.frontend), netip.MustParseAddrPort(test.backend))
		if err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	backend := netip.AddrPortFrom(container4, 1)
	for i := range maxPorts {
		_, err := l.table.Add(netip.AddrPortFrom(loopback4, uint16(i)), backend)
		rig.Must(t, err)
	}
	_, err := l.table.Add(netip.AddrPortFrom(loopback4, maxPorts), backend)
	if err == nil || err.Error() != "127.0.0.1:16384: there is room for 16384 ports only" {
		t.Errorf("of a full table: %v", err)
	}
}
