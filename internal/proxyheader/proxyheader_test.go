package proxyheader

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 writes a header of version 2 by hand.
func v2(command, family byte, content string) string {
	return string(binary.BigEndian.AppendUint16(append([]byte(signature), 0x20|command, family), uint16(len(content)))) + content
}

const (
	v4Content = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb"
	v6Content = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x04\xd2\x01\xbb"
)

var (
	v4 = of("192.0.2.1:1234", "198.51.100.2:443")
	v6 = of("[2001:db8::1]:1234", "[2001:db8::2]:443")
)

func of(client, frontend string) Addresses {
	return Addresses{netip.MustParseAddrPort(client), netip.MustParseAddrPort(frontend)}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct {
		name      string
		addresses Addresses
		version   uint8
		want      string
	}{
		{"v1, IPv4", v4, 1, "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"},
		{"v1, IPv6", v6, 1, "PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n"},
		{"v2, IPv4", v4, 2, v2(1, 0x11, v4Content)},
		{"v2, IPv6", v6, 2, v2(1, 0x21, v6Content)},
		{"a zone", of("[fe80::1%eth0]:1", "[fe80::2%eth0]:2"), 1, "PROXY TCP6 fe80::1 fe80::2 1 2\r\n"},
		{"both families", of("192.0.2.1:1", "[2001:db8::2]:2"), 1, "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"},
		{"v1, no frontend", Addresses{Client: v4.Client}, 1, "PROXY UNKNOWN\r\n"},
		{"v2, no frontend", Addresses{Client: v4.Client}, 2, v2(0, 0, "")},
	} {
		if got := string(test.addresses.Format(test.version)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// TestParse: a header is found whatever is behind it, and not before it is complete.
func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, header string
		want         Addresses
	}{
		{"v1, IPv4", "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n", v4},
		{"v1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n", v6},
		{"v1, mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1234 443\r\n", v4},
		{"v1, unknown", "PROXY UNKNOWN\r\n", Addresses{}},
		{"v1, longest", "PROXY UNKNOWN " + strings.Repeat("f", maxV1-16) + "\r\n", Addresses{}},
		{"v2, IPv4", v2(1, 0x11, v4Content), v4},
		{"v2, IPv6", v2(1, 0x21, v6Content), v6},
		{"v2, TLVs", v2(1, 0x11, v4Content+"\x02\x00\x0bexample.com"), v4},
		{"v2, longest", v2(1, 0x11, v4Content+strings.Repeat("\x04", Max-fixedV2-len(v4Content))), v4},
		{"v2, local", v2(0, 0, ""), Addresses{}},
		{"v2, local with addresses", v2(0, 0x11, v4Content), Addresses{}},
		{"v2, local with anything", v2(0, 0x11, "any"), Addresses{}},
		{"v2, UDP", v2(1, 0x12, v4Content), Addresses{}},
		{"v2, unix", v2(1, 0x31, strings.Repeat("/", 216)), Addresses{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, length, err := Parse([]byte(test.header + "and more\r\n"))
			if got != test.want || length != len(test.header) || err != nil {
				t.Errorf("got %v in %d bytes, %v; want %v in %d", got, length, err, test.want, len(test.header))
			}
			for n := range len(test.header) {
				if got, length, err := Parse([]byte(test.header[:n])); got != (Addresses{}) || length != 0 || err != nil {
					t.Fatalf("of %d bytes: got %v in %d, %v; want that more is needed", n, got, length, err)
				}
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, test := range []struct {
		name, b string
		want    error
	}{
		{"no header", "GET / HTTP/1.1\r\n\r\n", proxyproto.ErrNoProxyProtocol},
		{"almost a header", "PROXI", proxyproto.ErrNoProxyProtocol},
		{"one wrong byte", "G", proxyproto.ErrNoProxyProtocol},
		{"v1, no end", "PROXY UNKNOWN " + strings.Repeat("f", 200), proxyproto.ErrVersion1HeaderTooLong},
		{"v1, too long by one", "PROXY UNKNOWN " + strings.Repeat("f", maxV1-15) + "\r\n", proxyproto.ErrVersion1HeaderTooLong},
		{"v1, no carriage return", "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\n", proxyproto.ErrLineMustEndWithCrlf},
		{"v1, other family", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", proxyproto.ErrInvalidAddress},
		{"v1, no port", "PROXY TCP4 192.0.2.1 198.51.100.2 70000 443\r\n", proxyproto.ErrInvalidPortNumber},
		{"v2, other version", signature + "\x11\x11\x00\x00", proxyproto.ErrUnsupportedProtocolVersionAndCommand},
		{"v2, too short", v2(1, 0x11, "abc"), proxyproto.ErrInvalidLength},
		{"v2, too long by one", signature + "\x21\x11\x10\x01", proxyproto.ErrInvalidLength},
		{"v2, unknown family", v2(1, 0x41, v4Content), proxyproto.ErrUnsupportedAddressFamilyAndProtocol},
		{"v2, no family", v2(1, 0, ""), proxyproto.ErrUnsupportedAddressFamilyAndProtocol},
	} {
		if got, length, err := Parse([]byte(test.b)); got != (Addresses{}) || length != 0 || !errors.Is(err, test.want) {
			t.Errorf("%s: got %v in %d bytes, %v; want %v", test.name, got, length, err, test.want)
		}
	}
}

func TestTrusted(t *testing.T) {
	by := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fe80::/10")}
	for client, want := range map[string]bool{
		"192.0.2.7": true, "::ffff:192.0.2.7": true, "fe80::1%eth0": true, "192.0.3.7": false, "::1": false,
	} {
		if got := Trusted(by, netip.MustParseAddr(client)); got != want {
			t.Errorf("%s is trusted: %v, want %v", client, got, want)
		}
	}
	if Trusted(by, netip.Addr{}) {
		t.Error("no address is trusted")
	}
}

func TestCheckVersion(t *testing.T) {
	for version, known := range map[uint8]bool{0: true, 1: true, 2: true, 3: false} {
		if err := CheckVersion(version); (err == nil) != known {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

// FuzzParse: whatever comes, what is found is within what has come and the bounds, is the same without what is behind it,
// and can be told on.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\nhello", "PROXY UNKNOWN\r\n", v2(1, 0x21, v6Content), v2(0, 0x11, "any"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, length, err := Parse(b)
		switch {
		case length < 0 || length > min(len(b), Max):
			t.Fatalf("%d of %d bytes", length, len(b))
		case err != nil || length == 0:
			if got != (Addresses{}) || length > 0 {
				t.Fatalf("%v in %d bytes with %v", got, length, err)
			}
			if length == 0 && err == nil && len(b) >= Max {
				t.Fatalf("%d bytes are not enough", len(b))
			}
			return
		}
		if again, n, err := Parse(b[:length]); again != got || n != length || err != nil {
			t.Fatalf("the header alone is %v in %d bytes, %v; with %d more it was %v in %d", again, n, err, len(b)-length, got, length)
		}
		if got.Client.IsValid() {
			for version := uint8(1); version <= 2; version++ {
				if again, _, err := Parse(got.Format(version)); again != got || err != nil {
					t.Fatalf("%v is told on as %v, %v", got, again, err)
				}
			}
		}
	})
}
