package udp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

var asked4 = []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.255.255.254"}

// libnetwork#1729, moby#11998: the reply leaves from the address that was asked.
func TestLibnetwork1729ReplyFromAddressAsked(t *testing.T) {
	for _, c := range []struct {
		name, frontend string
		asked          []string
	}{
		{"any v4", "0.0.0.0", asked4},
		{"one v4", "127.0.0.2", []string{"127.0.0.2"}},
		{"any v6", "::", append([]string{"::1"}, asked4...)}, // net opens :: for both families
	} {
		t.Run(c.name, func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r := serve(t, c.frontend, addressOf(backend), Options{})
			for range 2 {
				for _, asked := range c.asked {
					// This client takes datagrams from the address it asked and no other.
					exchange(t, dial(t, at(r, asked)), backend, []byte("who is "+asked))
				}
			}
			if s := r.Stats(); s.Dropped != 0 {
				t.Errorf("%d dropped", s.Dropped)
			}
		})
	}
}

// One client socket that asks several addresses is a flow for each, so that replies can be told apart.
func TestLibnetwork1729OneClientAsksSeveral(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r := serve(t, "0.0.0.0", addressOf(backend), Options{})
	client := listen(t, "127.0.0.1")
	flows := map[netip.AddrPort]string{}
	for _, asked := range asked4 {
		reply(t, client, []byte(asked), at(r, asked))
		_, flow := receive(t, backend)
		if other, known := flows[flow]; known {
			t.Errorf("%v is the flow of both %s and %s", flow, other, asked)
		}
		flows[flow] = asked
	}
	for flow, asked := range flows {
		reply(t, backend, []byte(asked), flow)
		if from := expect(t, client, []byte(asked)); from != at(r, asked) {
			t.Errorf("reply from %v, want %v", from, at(r, asked))
		}
	}
}

// dockerd's socket arrives as a descriptor, with or without IP_PKTINFO set.
func TestLibnetwork1729InheritedSocket(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "::"} {
		t.Run(host, func(t *testing.T) {
			file, err := listen(t, host).File()
			if err != nil {
				t.Fatal(err)
			}
			inherited, err := net.FilePacketConn(file)
			if err := file.Close(); err != nil {
				t.Error(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			backend := listen(t, "127.0.0.1")
			r := start(t, newRelayOn(t, inherited.(*net.UDPConn), addressOf(backend), Options{}))
			for _, asked := range asked4 {
				exchange(t, dial(t, at(r, asked)), backend, []byte("who is "+asked))
			}
		})
	}
}

func TestParseLocal(t *testing.T) {
	v4 := local{addr: netip.MustParseAddr("192.0.2.1")}
	v6 := local{addr: netip.MustParseAddr("2001:db8::1")}
	linkLocal := local{addr: netip.MustParseAddr("fe80::1"), ifindex: 7}
	for _, c := range []struct {
		name    string
		control []byte
		want    local
	}{
		{"nothing", nil, local{}},
		{"v4", v4.control(), v4},
		{"v6", v6.control(), v6},
		{"v6 link-local keeps its interface", linkLocal.control(), linkLocal},
		{"v6 global does not", pktinfo6("2001:db8::1", 7), v6},
		{"v6 multicast cannot reply", pktinfo6("ff02::1", 7), local{}},
		{"v6 unspecified", pktinfo6("::", 0), local{}},
		{"v4 as v6 alone", pktinfo6("::ffff:192.0.2.9", 7), local{}},
		{"v4 as v6, then v4", slices.Concat(pktinfo6("::ffff:192.0.2.9", 7), v4.control()), v4},
		{"v4, then v4 as v6", slices.Concat(v4.control(), pktinfo6("::ffff:192.0.2.9", 7)), v4},
		{"after another message", slices.Concat(message(unix.SOL_SOCKET, unix.SO_TIMESTAMP, 16), v4.control()), v4},
		{"before another message", slices.Concat(v4.control(), message(unix.SOL_SOCKET, unix.SO_TIMESTAMP, 16)), v4},
		{"the same type at another level", message(unix.SOL_SOCKET, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo), local{}},
		{"v4 too short", message(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo-1), local{}},
		{"v6 too short", message(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo-1), local{}},
		{"cut in the header", v4.control()[:unix.SizeofCmsghdr-1], local{}},
		{"cut in the data", v4.control()[:unix.SizeofCmsghdr+4], local{}},
		{"second one cut", slices.Concat(v4.control(), v6.control()[:20]), v4},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parseLocal(c.control); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func pktinfo6(addr string, ifindex uint32) []byte {
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: netip.MustParseAddr(addr).As16(), Ifindex: ifindex})
}

// message is a control message of size zero bytes.
func message(level, kind int32, size int) []byte {
	b := make([]byte, unix.CmsgSpace(size))
	if unix.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(size)))
	}
	binary.NativeEndian.PutUint32(b[unix.SizeofCmsghdr-8:], uint32(level))
	binary.NativeEndian.PutUint32(b[unix.SizeofCmsghdr-4:], uint32(kind))
	return b
}

// Whatever is parsed: no panic, nothing taken from beyond the length, and what is found can be sent and found again.
func FuzzParseLocal(f *testing.F) {
	v4 := local{addr: netip.MustParseAddr("192.0.2.1")}.control()
	f.Add([]byte{})
	f.Add(v4)
	f.Add(slices.Concat(pktinfo6("::ffff:192.0.2.9", 7), v4))
	f.Add(pktinfo6("fe80::1", 7))
	f.Add(message(unix.SOL_SOCKET, unix.SO_TIMESTAMP, 16)[:20])
	f.Add(bytes.Repeat([]byte{0xff}, controlSpace))
	f.Fuzz(func(t *testing.T, control []byte) {
		got := parseLocal(control)
		stale := slices.Concat(control, v4)
		if again := parseLocal(stale[:len(control)]); again != got {
			t.Errorf("%v with stale bytes behind, %v without", again, got)
		}
		if found := parseLocal(got.control()); got.addr.IsValid() && found != got {
			t.Errorf("%v comes back as %v", got, found)
		}
		if got.ifindex != 0 && !got.addr.IsLinkLocalUnicast() {
			t.Errorf("%v keeps an interface", got)
		}
	})
}
