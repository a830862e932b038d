//go:build linux && sctp_kernel

package sctp

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/ishidawataru/sctp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMultiHomedClient: a client with two addresses keeps its association when it loses the first of them.
func TestMultiHomedClient(t *testing.T) {
	for _, test := range []struct{ name, front, first, second string }{
		{"v4", "198.18.0.1/32", "198.18.0.2/32", "198.18.0.3/32"},
		{"v6", "fd00::1/128", "fd00::2/128", "fd00::3/128"},
	} {
		t.Run(test.name, func(t *testing.T) {
			hurry(t)
			front, first, second := address(t, test.front), address(t, test.first), address(t, test.second)
			backend, addr := listen(t, "127.0.0.1", 10)
			relay := startRelay(t, front.String(), addr, Options{})
			family, _, err := sockaddr(relay.addr)
			if err != nil {
				t.Fatal(err)
			}
			client := newPeer(t, family, 10)
			client.bindAll(first, second)
			client.must("connect", client.connect(relay.addr))
			server := backend.accept()
			exchange := func() {
				there, back := newParcel(1000, 3), newParcel(70<<10, 4)
				client.send(there)
				server.expect(there)
				server.send(back)
				client.expect(back)
			}
			exchange()
			drop(t, test.first)
			exchange()
			relay.expectStats(t, Stats{Accepted: 1, Active: 1, MessagesIn: 2, MessagesOut: 2, BytesIn: 2000,
				BytesOut: 2 * 70 << 10})
		})
	}
}

// TestAddresses: the backend learns the address that the relay speaks from, and none of the host's others.
// Public issue: moby#42762.
func TestAddresses(t *testing.T) {
	for _, test := range []struct{ name, backend, other string }{
		{"v4", "127.0.0.1", "198.18.0.1/32"},
		{"v6", "::1", "fd00::1/128"},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := address(t, test.other)
			backend, addr := listen(t, test.backend, 10)
			relay := startRelay(t, other.String(), addr, Options{})
			client, server := relay.open(t, backend)
			for _, see := range []struct {
				p    *peer
				want string
			}{{server, test.backend}, {client, other.String()}} {
				got, err := sctp.NewSCTPConn(see.p.fd, nil).SCTPRemoteAddr(0)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.IPAddrs) != 1 || got.IPAddrs[0].IP.String() != see.want {
					t.Errorf("a peer has learnt %v; want %v", got, see.want)
				}
			}
		})
	}
}

// hurry makes new associations find out sooner that a path is dead: after one time-out, of at least 100 ms, rather than
// after six of a second and more. It is undone when the test ends.
func hurry(t *testing.T) {
	t.Helper()
	// In this order, and back in the opposite one: the kernel does not take a minimum above the maximum.
	for _, set := range [][2]string{{"rto_min", "100"}, {"rto_max", "400"}, {"rto_initial", "200"}, {"path_max_retrans", "1"}} {
		path, value := "/proc/sys/net/sctp/"+set[0], set[1]
		before, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(value), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, before, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// address gives lo an address, which can be used, until the test ends.
func address(t *testing.T, prefix string) netip.Addr {
	t.Helper()
	lo, addr := onLoopback(t, prefix)
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.AddrDel(lo, addr) }) // unless the test has removed it
	// The kernel adds the route to a v6 address later (addrconf_dad_work), and an association that begins before keeps
	// the route that it found then.
	eventually(t, func() bool {
		routes, err := netlink.RouteGet(addr.IP)
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
	}, func() string { return prefix + " has no route" })
	return netip.MustParsePrefix(prefix).Addr()
}

// drop takes an address from lo, and with it the path.
func drop(t *testing.T, prefix string) {
	t.Helper()
	if err := netlink.AddrDel(onLoopback(t, prefix)); err != nil {
		t.Fatal(err)
	}
}

func onLoopback(t *testing.T, prefix string) (netlink.Link, *netlink.Addr) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	addr.Flags = unix.IFA_F_NODAD // or a v6 address could not be used yet
	return lo, addr
}

// bindAll binds the peer to all of the addresses.
func (p *peer) bindAll(addrs ...netip.Addr) {
	p.t.Helper()
	all := &sctp.SCTPAddr{}
	for _, a := range addrs {
		all.IPAddrs = append(all.IPAddrs, net.IPAddr{IP: a.AsSlice()})
	}
	p.must("bindx", sctp.SCTPBind(p.fd, all, sctp.SCTP_BINDX_ADD_ADDR))
}
