package splice

import (
	"net/netip"
	"testing"
)

// TestSockaddr: what is encoded is decoded again; a link-local address keeps its zone, which lines of the log need.
func TestSockaddr(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:80":          "127.0.0.1:80",
		"[fd00::1]:443":         "[fd00::1]:443",
		"[::ffff:127.0.0.1]:80": "127.0.0.1:80",
		"[fe80::1%lo]:8080":     "[fe80::1%1]:8080",
		"[fe80::1%7]:8080":      "[fe80::1%7]:8080",
	} {
		s, err := newSockaddr(netip.MustParseAddrPort(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := addrPort(&s.raw); got.String() != want {
			t.Errorf("%s became %v, want %s", text, got, want)
		}
	}
}
