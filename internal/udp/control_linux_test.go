package udp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

var asked4 = []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.255.255.254"}

// libnetwork#1729, moby#11998: the reply leaves from the address that was asked.
func TestLibnetwork1729ReplyFromAddressAsked(t *testing.T) {
	onEach(t, testLibnetwork1729ReplyFromAddressAsked)
}

func testLibnetwork1729ReplyFromAddressAsked(t *testing.T, e engine) {
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
			r := e.serve(t, c.frontend, addressOf(backend), Options{})
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
	onEach(t, testLibnetwork1729OneClientAsksSeveral)
}

func testLibnetwork1729OneClientAsksSeveral(t *testing.T, e engine) {
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "0.0.0.0", addressOf(backend), Options{})
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
func TestLibnetwork1729InheritedSocket(t *testing.T) { onEach(t, testLibnetwork1729InheritedSocket) }

func testLibnetwork1729InheritedSocket(t *testing.T, e engine) {
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
			r := start(t, e.newRelayOn(t, inherited.(*net.UDPConn), addressOf(backend), Options{}))
			for _, asked := range asked4 {
				exchange(t, dial(t, at(r, asked)), backend, []byte("who is "+asked))
			}
		})
	}
}

func TestParseControl(t *testing.T) {
	v4, v6, linkLocal := localOf("192.0.2.1", 0), localOf("2001:db8::1", 0), localOf("fe80::1", 7)
	asked := func(l local) ancillary { return ancillary{asked: l} }
	lost := message(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 9, 0, 0, 0)
	for _, c := range []struct {
		name    string
		control []byte
		want    ancillary
	}{
		{"nothing", nil, ancillary{}},
		{"v4", v4.appendControl(nil), asked(v4)},
		{"v6", v6.appendControl(nil), asked(v6)},
		{"v6 link-local keeps its interface", linkLocal.appendControl(nil), asked(linkLocal)},
		{"v6 global does not", pktinfo6("2001:db8::1", 7), asked(v6)},
		{"v6 multicast cannot reply", pktinfo6("ff02::1", 7), ancillary{}},
		{"v6 unspecified", pktinfo6("::", 0), ancillary{}},
		{"v4 as v6 alone", pktinfo6("::ffff:192.0.2.9", 7), ancillary{}},
		{"v4 as v6, then v4", slices.Concat(pktinfo6("::ffff:192.0.2.9", 7), v4.appendControl(nil)), asked(v4)},
		{"v4, then v4 as v6", slices.Concat(v4.appendControl(nil), pktinfo6("::ffff:192.0.2.9", 7)), asked(v4)},
		{"after another message", slices.Concat(timestamp, v4.appendControl(nil)), asked(v4)},
		{"before another message", slices.Concat(v4.appendControl(nil), timestamp), asked(v4)},
		{"the same type at another level", message(unix.SOL_SOCKET, unix.IP_PKTINFO, make([]byte, 12)...), ancillary{}},
		{"v4 too short", message(unix.SOL_IP, unix.IP_PKTINFO, make([]byte, 11)...), ancillary{}},
		{"v6 too short", message(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 19)...), ancillary{}},
		{"cut in the header", v4.appendControl(nil)[:unix.SizeofCmsghdr-1], ancillary{}},
		{"cut in the data", v4.appendControl(nil)[:unix.SizeofCmsghdr+4], ancillary{}},
		{"second one cut", slices.Concat(v4.appendControl(nil), v6.appendControl(nil)[:20]), asked(v4)},
		{"length of zero", make([]byte, 32), ancillary{}},
		{"size of segments", message(unix.SOL_UDP, unix.UDP_GRO, 200, 0, 0, 0), ancillary{segment: 200}},
		{"size of segments, too short", message(unix.SOL_UDP, unix.UDP_GRO, 200, 0), ancillary{}},
		{"size of segments, below zero", message(unix.SOL_UDP, unix.UDP_GRO, 0xff, 0xff, 0xff, 0xff), ancillary{segment: -1}},
		{"traffic class of v4", message(unix.SOL_IP, unix.IP_TOS, 0xb9), ancillary{tos: 0xb9}},
		{"traffic class of v6", message(unix.SOL_IPV6, unix.IPV6_TCLASS, 0xb9, 0, 0, 0), ancillary{tos: 0xb9}},
		{"traffic class, too short", message(unix.SOL_IPV6, unix.IPV6_TCLASS, 0xb9), ancillary{}},
		{"lost", lost, ancillary{lost: 9, counted: true}},
		{"everything", slices.Concat(lost, message(unix.SOL_UDP, unix.UDP_GRO, 7, 0, 0, 0), v6.appendControl(nil)),
			ancillary{asked: v6, segment: 7, lost: 9, counted: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parseControl(c.control)
			got.device = 0
			if got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func localOf(addr string, ifindex uint32) local {
	return local{addr: netip.MustParseAddr(addr).As16(), ifindex: ifindex}
}

func pktinfo6(addr string, ifindex uint32) []byte {
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: netip.MustParseAddr(addr).As16(), Ifindex: ifindex})
}

// timestamp is a message that nobody here asked for.
var timestamp = message(unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 16)...)

// message is a control message; numbers in it are those of machines that put the lowest byte first.
func message(level, kind int32, data ...byte) []byte {
	return appendMessage(nil, level, kind, unsafe.Pointer(unsafe.SliceData(data)), len(data))
}

// The messages that are sent are what package unix makes them.
func TestLocalControl(t *testing.T) {
	for _, c := range []struct {
		name string
		of   local
		want []byte
	}{
		{"unknown", local{}, nil},
		{"v4", localOf("192.0.2.1", 0), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{192, 0, 2, 1}})},
		{"v6", localOf("2001:db8::1", 0), pktinfo6("2001:db8::1", 0)},
		{"v6 link-local", localOf("fe80::1", 7), pktinfo6("fe80::1", 7)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.of.appendControl(nil); !bytes.Equal(got, c.want) {
				t.Errorf("got %x, want %x", got, c.want)
			}
		})
	}
}

// Whatever is parsed: no panic, nothing taken from beyond the length, and what is found can be sent and found again.
func FuzzParseControl(f *testing.F) {
	v4 := localOf("192.0.2.1", 0).appendControl(nil)
	f.Add([]byte{})
	f.Add(v4)
	f.Add(slices.Concat(pktinfo6("::ffff:192.0.2.9", 7), v4))
	f.Add(pktinfo6("fe80::1", 7))
	f.Add(timestamp[:20])
	f.Add(slices.Concat(message(unix.SOL_UDP, unix.UDP_GRO, 200, 0, 0, 0), v4))
	f.Add(slices.Concat(message(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 9, 0, 0, 0), v4))
	f.Add(bytes.Repeat([]byte{0xff}, controlSpace))
	f.Fuzz(func(t *testing.T, control []byte) {
		got := parseControl(control)
		stale := slices.Concat(control, v4)
		if again := parseControl(stale[:len(control)]); again != got {
			t.Errorf("%v with stale bytes behind, %v without", again, got)
		}
		if found := parseControl(got.asked.appendControl(nil)).asked; found != got.asked {
			t.Errorf("%v comes back as %v", got.asked, found)
		}
		if got.asked.ifindex != 0 && !netip.AddrFrom16(got.asked.addr).IsLinkLocalUnicast() {
			t.Errorf("%v keeps an interface", got.asked)
		}
		b := appendTOS(got.asked.appendControl(make([]byte, 0, blockControl)), got.tos%2 == 0, got.tos)
		if cap(appendSegment(b, 1)) != blockControl {
			t.Errorf("the control messages of a block do not fit %d bytes", blockControl)
		}
	})
}
