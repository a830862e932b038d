package transparent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoRule is why no answer can come back.
var ErrNoRule = errors.New("no rule of ip-rule(8) has the container's answers to clients delivered to this host: " +
	"docs/client-addresses.md has the commands for that")

// errForwarded is why answers do not come back, as far as the rules tell.
var errForwarded = errors.New("the container's answers to clients seem to be forwarded, and not delivered to this host, by " +
	"the rules of ip-rule(8)")

// Answered says whether what a backend answers to clients would be delivered to this host. An error is certain. A doubt is
// not: a rule may be for other clients than those that were asked for.
func Answered(backend netip.Addr) (doubt, err error) {
	backend = backend.Unmap()
	rules, err := rulesFor(backend)
	switch {
	case err != nil:
		return fmt.Errorf("the rules of ip-rule(8) cannot be read: %w", err), nil
	case len(rules) == 0:
		return nil, ErrNoRule
	}
	out, err := lookup(backend)
	if err != nil {
		return fmt.Errorf("there is no way to the container: %w", err), nil
	}
	doubt = errForwarded
	for _, r := range rules {
		back, err := lookup(r.client, attribute(unix.RTA_SRC, backend.AsSlice()),
			attribute(unix.RTA_IIF, number(out.device)), attribute(unix.RTA_MARK, number(r.mark)))
		switch {
		case err != nil: // martian, by rp_filter, is EINVAL or EXDEV
			doubt = fmt.Errorf("%w: fwmark %#x: %w", errForwarded, r.mark, err)
		case back.kind == unix.RTN_LOCAL:
			return nil, nil
		}
	}
	return doubt, nil
}

// rule is one that is not the kernel's own: the mark of the packets that it is for, and a client that they may be to.
type rule struct {
	mark   uint32
	client netip.Addr
}

// ruleHeader is the size of what is before a rule's attributes, and ruleTable the place of its table there (struct
// fib_rule_hdr in include/uapi/linux/fib_rules.h).
const ruleHeader, ruleTable = 12, 4

// rulesFor reads the rules of the backend's family that lead to other tables than the kernel's own.
func rulesFor(backend netip.Addr) (rules []rule, err error) {
	family, stranger := unix.AF_INET, netip.AddrFrom4([4]byte{192, 0, 2, 1}) // of nobody, by RFC 5737
	if backend.Is6() {
		family, stranger = unix.AF_INET6, netip.MustParseAddr("2001:db8::1") // RFC 3849
	}
	answer, err := syscall.NetlinkRIB(unix.RTM_GETRULE, family)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWRULE || len(m.Data) < ruleHeader {
			continue
		}
		r, table := rule{client: stranger}, uint32(m.Data[ruleTable])
		for kind, value := range attributes(m.Data[ruleHeader:]) {
			switch to, ok := netip.AddrFromSlice(value); {
			case kind == unix.FRA_DST && ok:
				r.client = to
			case kind == unix.FRA_FWMARK && len(value) == 4:
				r.mark = binary.NativeEndian.Uint32(value)
			case kind == unix.FRA_TABLE && len(value) == 4:
				table = binary.NativeEndian.Uint32(value)
			}
		}
		if table != unix.RT_TABLE_LOCAL && table != unix.RT_TABLE_MAIN && table != unix.RT_TABLE_DEFAULT {
			rules = append(rules, r)
		}
	}
	return rules, err
}

// route is what the kernel would do with a packet.
type route struct {
	kind   uint8  // RTN_UNICAST, RTN_LOCAL, ...
	device uint32 // that it would leave by
}

// lookup asks for the route to an address (RTM_GETROUTE, rtnetlink(7)), of a packet that the attributes say more of.
func lookup(to netip.Addr, more ...[]byte) (r route, err error) {
	family, bits := byte(unix.AF_INET), byte(to.BitLen())
	if to.Is6() {
		family = unix.AF_INET6
	}
	source := byte(0)
	if len(more) > 0 {
		source = bits
	}
	request := append(make([]byte, unix.SizeofNlMsghdr), family, bits, source, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	request = append(request, attribute(unix.RTA_DST, to.AsSlice())...)
	request = append(request, slices.Concat(more...)...)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return r, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return r, err
	}
	answer := make([]byte, 4<<10) // is there when the request has been sent
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return r, err
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	for _, m := range messages {
		switch {
		case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
			return r, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		case m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) >= unix.SizeofRtMsg:
			r.kind = m.Data[7]
			for kind, value := range attributes(m.Data[unix.SizeofRtMsg:]) {
				if kind == unix.RTA_OIF && len(value) == 4 {
					r.device = binary.NativeEndian.Uint32(value)
				}
			}
		}
	}
	return r, err
}

// attributes gives the attributes of a message (struct rtattr, rtnetlink(7)).
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) ||
				!yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// attribute encodes one, whose value fills whole words.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, value...)
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
