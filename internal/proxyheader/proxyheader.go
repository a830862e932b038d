// Package proxyheader writes and reads the header by which a proxy tells whom it connects to who its client is: the PROXY
// protocol, version 1 (a line of text) and 2 (binary), by HAProxy's specification
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt). The formats are github.com/pires/go-proxyproto's affair;
// this package finds where a header ends in a stream that has come in part, which that one would wait for.
package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/pires/go-proxyproto"
)

const (
	// maxV1 is the longest header of version 1 ("worst case", section 2.1).
	maxV1 = 107

	// lengthAt is where a header of version 2 has the length of what follows its fixed part, and fixedV2 is where that
	// ends (section 2.2).
	lengthAt = 14
	fixedV2  = 16

	// Max is the longest header that is taken. Version 2 could say 64 KiB, of which the specification has receivers take
	// 536 bytes at least: what is longer are TLVs, such as a client's certificate of 1 to 2 KiB. It is the limit of the
	// library, too (MaxV2HeaderSize).
	Max = fixedV2 + 4096
)

// Why a header is refused, beside what the library finds wrong with it.
var (
	ErrEnded   = errors.New("the connection ended before its PROXY header did")
	ErrTimeout = errors.New("the PROXY header did not come within the dial timeout")
)

// Addresses are what a header tells: who has connected, and to what.
type Addresses struct{ Client, Frontend netip.AddrPort }

// CheckVersion says whether there is such a version of the protocol; zero stands for no header.
func CheckVersion(version uint8) error {
	if version > 2 {
		return fmt.Errorf("PROXY protocol version %d is unknown (1 and 2 are known, 0 is none)", version)
	}
	return nil
}

// Format gives a header of a version, which is 1 or 2. It is one of IPv4 if both addresses are, and of IPv6 else; zones are
// left out, for which there is no room. If an address is none it says so (UNKNOWN in version 1, LOCAL in 2).
func (a Addresses) Format(version uint8) []byte {
	// It fails for what no netip.AddrPort can hold.
	header, _ := proxyproto.HeaderProxyFromAddrs(version, tcpAddr(a.Client), tcpAddr(a.Frontend)).Format()
	return header
}

func tcpAddr(a netip.AddrPort) *net.TCPAddr { return net.TCPAddrFromAddrPort(a) }

// Parse reads the header that b begins with, and gives its length. A length of zero says that b ends before the header
// does. The header of a connection that the other proxy made by itself (LOCAL), or for a client that it does not know
// (UNKNOWN) or that did not come by TCP, tells no addresses.
func Parse(b []byte) (a Addresses, length int, err error) {
	length, err = find(b)
	if err != nil || length == 0 {
		return Addresses{}, 0, err
	}
	header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b[:length]), maxV1))
	if err != nil {
		return Addresses{}, 0, err
	}
	if client, frontend, ok := header.TCPAddrs(); ok && header.Command.IsProxy() {
		a = Addresses{unmapped(client), unmapped(frontend)}
	}
	return a, length, nil
}

// find gives the length of the header that b begins with; zero: b ends before it does.
func find(b []byte) (int, error) {
	switch {
	case begins(b, proxyproto.SIGV1):
		end := bytes.IndexByte(b[:min(len(b), maxV1)], '\n')
		if end < 0 && len(b) >= maxV1 {
			return 0, proxyproto.ErrVersion1HeaderTooLong
		}
		return end + 1, nil
	case begins(b, proxyproto.SIGV2):
		if len(b) < fixedV2 {
			return 0, nil
		}
		length := fixedV2 + int(binary.BigEndian.Uint16(b[lengthAt:]))
		switch {
		case length > Max:
			return 0, fmt.Errorf("%w: %d bytes, more than %d", proxyproto.ErrInvalidLength, length, Max)
		case length > len(b):
			return 0, nil
		}
		return length, nil
	}
	return 0, proxyproto.ErrNoProxyProtocol
}

// begins says whether b, as far as it goes, is the signature.
func begins(b, signature []byte) bool {
	return bytes.HasPrefix(b, signature[:min(len(b), len(signature))])
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Trusted says whether a client is one of those that begin with a header.
func Trusted(by []netip.Prefix, client netip.Addr) bool {
	client = client.Unmap().WithZone("") // a prefix has none
	return slices.ContainsFunc(by, func(p netip.Prefix) bool { return p.Contains(client) })
}
