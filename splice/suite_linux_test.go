package splice_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/leakcheck"
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

func starter(policy splice.Policy) func(*testing.T, netip.AddrPort, tcpsuite.Options) tcpsuite.Proxy {
	return func(t *testing.T, backend netip.AddrPort, o tcpsuite.Options) tcpsuite.Proxy {
		t.Helper()
		return start(t, backend, splice.Options{DialTimeout: o.DialTimeout, Report: o.Report, Policy: policy})
	}
}

func start(t *testing.T, backend netip.AddrPort, o splice.Options) tcpsuite.Proxy {
	t.Helper()
	listener, addr := bind(t)
	engine, err := splice.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Add(listener, backend); err != nil {
		t.Fatal(err)
	}
	return tcpsuite.Proxy{
		Addr: addr,
		Stats: func() tcpsuite.Stats {
			s := engine.Stats()
			return tcpsuite.Stats{
				Accepted: s.Accepted, Active: s.Active, DialErrors: s.DialErrors, Aborted: s.Aborted,
				Spliced: s.Spliced, Copied: s.Copied,
			}
		},
		Close: func() {
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
		},
	}
}

// bind gives a socket that is bound to a fresh port of the loopback interface.
func bind(t *testing.T) (int, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	loopback := [4]byte{127, 0, 0, 1}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4(loopback), uint16(name.(*unix.SockaddrInet4).Port))
}
