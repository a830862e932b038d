package fallback_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/tcpsuite"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestSuite(t *testing.T) {
	tcpsuite.Run(t, tcpsuite.Engine{Start: start, Paths: tcpsuite.Paths{Small: tcpsuite.Copied, Streams: tcpsuite.Copied}})
}

func start(t *testing.T, backend netip.AddrPort, o tcpsuite.Options) tcpsuite.Proxy {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	engine := fallback.New(fallback.Options{DialTimeout: o.DialTimeout, Report: o.Report})
	if _, err := engine.Add(listener, backend); err != nil {
		t.Fatal(err)
	}
	return tcpsuite.Proxy{
		Addr: listener.Addr().(*net.TCPAddr).AddrPort(),
		Stats: func() tcpsuite.Stats {
			s := engine.Stats()
			return tcpsuite.Stats{
				Accepted: s.Accepted, Active: s.Active, DialErrors: s.DialErrors, Aborted: s.Aborted, Copied: s.Copied,
			}
		},
		Close: func() {
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
		},
	}
}
