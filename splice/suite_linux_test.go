package splice_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/tcpsuite"
	"github.com/portsplice/portsplice/splice"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestSuite(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy splice.Policy
		paths  tcpsuite.Paths
	}{
		{"adaptive", splice.Adaptive, tcpsuite.Paths{Small: tcpsuite.Copied, Streams: tcpsuite.Spliced}},
		{"always", splice.Always, tcpsuite.Paths{Small: tcpsuite.Spliced, Streams: tcpsuite.Spliced}},
		{"never", splice.Never, tcpsuite.Paths{Small: tcpsuite.Copied, Streams: tcpsuite.Copied}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tcpsuite.Run(t, tcpsuite.Engine{Start: starter(test.policy), Paths: test.paths})
		})
	}
}

func starter(policy splice.Policy) func(*testing.T, *net.TCPListener, netip.AddrPort, tcpsuite.Options) tcpsuite.Proxy {
	return func(t *testing.T, l *net.TCPListener, backend netip.AddrPort, o tcpsuite.Options) tcpsuite.Proxy {
		t.Helper()
		ended := make(chan error, 1)
		engine := newEngine(t, splice.Options{
			Ended: func(err error) { ended <- err }, DialTimeout: o.DialTimeout, KeepAlive: o.KeepAlive, Report: o.Report, Observe: o.Observe, Policy: policy,
			ProxyProtocol: o.ProxyProtocol, AcceptProxyProtocol: o.AcceptProxyProtocol,
		})
		if o.AcceptErrors != nil || o.SocketErrors != nil {
			engine.FailCalls(o.AcceptErrors, o.SocketErrors)
		}
		_, err := engine.Add(rig.Take(t, l), backend)
		rig.Must(t, errors.Join(err, l.Close()))
		return tcpsuite.Proxy{
			Stats: counters(engine), Ended: ended, Close: func() { rig.Check(t, engine.Close()) },
		}
	}
}

func counters(e *splice.Engine) func() tcpsuite.Stats {
	return func() tcpsuite.Stats {
		s := e.Stats()
		return tcpsuite.Stats{
			Accepted: s.Accepted, Active: s.Active, AcceptErrors: s.AcceptErrors, DialErrors: s.DialErrors,
			Aborted: s.Aborted, Spliced: s.Spliced, Copied: s.Copied, HeadersRefused: s.HeadersRefused,
			BytesIn: s.BytesIn, BytesOut: s.BytesOut, DialRefused: s.DialRefused,
		}
	}
}
