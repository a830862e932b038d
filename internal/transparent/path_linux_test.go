package transparent

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// host gives a namespace whose interface wire0 is one of the backends' network.
func host(t *testing.T) *netlab.Namespace {
	t.Helper()
	n, container := rig.Namespace(t), rig.Namespace(t)
	rig.Must(t, netlab.Cable("wire0", n, netip.MustParsePrefix("198.18.0.1/24"), container, netip.MustParsePrefix("198.18.0.2/24")))
	rig.Must(t, n.Up("wire0", netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("198.18.0.9/24")))
	return n
}

func TestSource(t *testing.T) {
	n := host(t)
	for _, test := range []struct {
		backend, client, want string
		err                   error
	}{
		{"198.18.0.2", "203.0.113.7", "203.0.113.7", nil},
		{"198.18.0.2", "::ffff:203.0.113.7", "203.0.113.7", nil},
		{"::ffff:198.18.0.2", "203.0.113.7", "203.0.113.7", nil},
		{"fd00::2", "2001:db8::7", "2001:db8::7", nil},
		{"198.18.0.2", "127.0.0.1", "", nil},
		{"198.18.0.2", "127.9.8.7", "", nil},
		{"198.18.0.2", "::1", "", nil}, // it is this host, whatever the family
		{"fd00::2", "127.0.0.1", "", nil},
		{"198.18.0.2", "198.18.0.1", "", nil},
		{"198.18.0.2", "198.18.0.9", "", nil},
		{"fd00::2", "fd00::1", "", nil},
		{"198.18.0.2", "198.18.0.3", "", ErrNeighbour},
		{"fd00::2", "fd00::3", "", ErrNeighbour},
		{"198.18.0.2", "2001:db8::7", "", ErrFamily},
		{"fd00::2", "203.0.113.7", "", ErrFamily},
		{"fd00::2", "fe80::7%1", "", ErrNoAddress},
		{"198.18.0.2", "0.0.0.0", "", ErrNoAddress},
		{"198.18.0.2", "169.254.1.1", "", ErrNoAddress},
	} {
		t.Run(test.client+" to "+test.backend, func(t *testing.T) {
			var p *Path
			rig.Must(t, n.Do(func() (err error) {
				p, err = To(netip.MustParseAddr(test.backend))
				return err
			}))
			source, err := p.Source(netip.MustParseAddr(test.client))
			if !errors.Is(err, test.err) || err == nil && source.IsValid() != (test.want != "") ||
				err == nil && test.want != "" && source.String() != test.want {
				t.Errorf("got %v, %v; want %q, %v", source, err, test.want, test.err)
			}
		})
	}
	if source, err := (*Path)(nil).Source(netip.MustParseAddr("203.0.113.7")); source.IsValid() || err != nil {
		t.Errorf("no path shows %v, %v", source, err)
	}
}

// TestTold: whom another proxy tells of is not this host, whatever its address, and is not shown as this host.
func TestTold(t *testing.T) {
	n := host(t)
	var p *Path
	rig.Must(t, n.Do(func() (err error) {
		p, err = To(netip.MustParseAddr("198.18.0.2"))
		return err
	}))
	for client, want := range map[string]error{
		"127.0.0.1": ErrThisHost, "::ffff:127.0.0.1": ErrThisHost, "::1": ErrThisHost, "198.18.0.1": ErrThisHost,
		"203.0.113.7": nil, "198.18.0.3": nil, "2001:db8::7": nil, // of the last two, Source says that they cannot be shown
	} {
		if err := p.Told(netip.MustParseAddr(client)); !errors.Is(err, want) {
			t.Errorf("told of as %s: %v, want %v", client, err, want)
		}
	}
	if err := (*Path)(nil).Told(netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Errorf("no path refuses with %v", err)
	}
}

// TestAnswered: without a rule it is certain that answers do not come back; with one the kernel is asked.
func TestAnswered(t *testing.T) {
	const table, mark = 7073, 0x7073
	everything := map[int]string{netlink.FAMILY_V4: "0.0.0.0/0", netlink.FAMILY_V6: "::/0"}
	for _, test := range []struct {
		name    string
		backend string
		family  int
	}{{"v4", "198.18.0.2", netlink.FAMILY_V4}, {"v6", "fd00::2", netlink.FAMILY_V6}} {
		t.Run(test.name, func(t *testing.T) {
			n, backend := host(t), netip.MustParseAddr(test.backend)
			expect := func(want string, doubted bool, certain error) {
				t.Helper()
				rig.Must(t, n.Do(func() error {
					doubt, err := Answered(backend)
					if !errors.Is(err, certain) || (doubt != nil) != doubted || doubted && !errors.Is(doubt, errForwarded) {
						t.Errorf("%s: doubt %v, error %v", want, doubt, err)
					}
					return nil
				}))
			}
			rule := func(set func(*netlink.Rule)) {
				r := netlink.NewRule()
				r.Family, r.Table, r.Mark = test.family, table, mark
				set(r)
				rig.Must(t, n.Do(func() error { return netlink.RuleAdd(r) }))
			}
			expect("no rule", false, ErrNoRule)
			rule(func(r *netlink.Rule) { r.Table, r.Mark = unix.RT_TABLE_MAIN, 1 })
			expect("a rule to a table of the kernel's", false, ErrNoRule)
			rule(func(r *netlink.Rule) { r.Table, r.Mark = table+1, 0x51820 })
			expect("somebody else's rule", true, nil)
			rule(func(*netlink.Rule) {})
			expect("a rule without a route", true, nil)
			_, all, err := net.ParseCIDR(everything[test.family])
			rig.Must(t, err)
			rig.Must(t, n.Do(func() error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL,
					Scope: unix.RT_SCOPE_HOST, Table: table})
			}))
			expect("a rule and its route", false, nil)
		})
	}
}

// TestMartianAnswers: with src_valid_mark, which wg-quick(8) sets, the kernel looks for the way to the container with the
// mark as well, and so takes the container's address for its own; a rule for what comes from the container's network has
// no part in that.
func TestMartianAnswers(t *testing.T) {
	n := host(t)
	rig.Must(t, n.Sysctl("ipv4/conf/all/src_valid_mark", "1"))
	for _, test := range []struct {
		from    string
		doubted bool
	}{{"", true}, {"wire0", false}} {
		rig.Must(t, n.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			r := netlink.NewRule()
			r.Family, r.Table, r.Mark, r.IifName = netlink.FAMILY_V4, 7073, 0x7073, test.from
			all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
			route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL,
				Scope: unix.RT_SCOPE_HOST, Table: r.Table}
			if err := errors.Join(netlink.RuleAdd(r), netlink.RouteReplace(route)); err != nil {
				return err
			}
			doubt, err := Answered(netip.MustParseAddr("198.18.0.2"))
			if err != nil || (doubt != nil) != test.doubted || doubt != nil && !errors.Is(doubt, unix.EINVAL) {
				t.Errorf("a rule for packets from %q: doubt %v, error %v", test.from, doubt, err)
			}
			return netlink.RuleDel(r)
		}))
	}
}
