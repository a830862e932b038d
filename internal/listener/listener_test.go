package listener

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestTakenAsNet opens a socket for each protocol of package net and uses it.
func TestTakenAsNet(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run("tcp "+addr, func(t *testing.T) {
			l, err := openOn(t, TCP, addr).Listener()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				err = conn.Close()
			}
			if err := errors.Join(err, l.Close()); err != nil {
				t.Error(err)
			}
		})
		t.Run("udp "+addr, func(t *testing.T) {
			conn, err := openOn(t, UDP, addr).UDPConn()
			if err != nil {
				t.Fatal(err)
			}
			self := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			_, err = conn.WriteToUDPAddrPort([]byte("hello"), self)
			if err == nil {
				_, _, err = conn.ReadFromUDPAddrPort(make([]byte, 8))
			}
			if err := errors.Join(err, conn.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

func openOn(t *testing.T, p Protocol, addr string) *Socket {
	t.Helper()
	s, err := Open(p, netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil { // taken: nothing to close
			t.Error(err)
		}
	})
	return s
}

// TestCloseUntaken: a socket that nobody took leaves no descriptor behind.
func TestCloseUntaken(t *testing.T) {
	openOn(t, TCP, "127.0.0.1:0")
	openOn(t, UDP, "127.0.0.1:0")
}
