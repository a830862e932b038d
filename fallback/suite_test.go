package fallback_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/tcpsuite"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestSuite(t *testing.T) {
	tcpsuite.Run(t, tcpsuite.Engine{Start: start, Paths: tcpsuite.Paths{Small: tcpsuite.Copied, Streams: tcpsuite.Copied}})
}

func start(t *testing.T, l *net.TCPListener, backend netip.AddrPort, o tcpsuite.Options) tcpsuite.Proxy {
	t.Helper()
	ended := make(chan error, 1)
	engine := fallback.New(fallback.Options{
		Ended: func(err error) { ended <- err }, DialTimeout: o.DialTimeout, KeepAlive: o.KeepAlive, Report: o.Report, Observe: o.Observe,
		ProxyProtocol: o.ProxyProtocol, AcceptProxyProtocol: o.AcceptProxyProtocol,
	})
	engine.FailSockets(o.SocketErrors)
	_, err := engine.AddFailing(l, backend, o.AcceptErrors)
	rig.Must(t, err)
	return tcpsuite.Proxy{
		Ended: ended,
		Stats: func() tcpsuite.Stats {
			s := engine.Stats()
			return tcpsuite.Stats{
				Accepted: s.Accepted, Active: s.Active, AcceptErrors: s.AcceptErrors, DialErrors: s.DialErrors,
				Aborted: s.Aborted, Copied: s.Copied, HeadersRefused: s.HeadersRefused,
				BytesIn: s.BytesIn, BytesOut: s.BytesOut, DialRefused: s.DialRefused,
			}
		},
		Close: func() { rig.Check(t, engine.Close()) },
	}
}
