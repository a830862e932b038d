// Package tcpsuite is the behaviour that every TCP engine owes its users, as tests that run over any of them.
package tcpsuite

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/rig"
)

// Proxy is an engine under test that serves one port.
type Proxy struct {
	Addr  netip.AddrPort // where clients connect; the suite knows it
	Stats func() Stats
	Ended <-chan error // why the port has ended by itself
	Close func()
}

// Stats are the counters that the suite looks at.
type Stats struct {
	Accepted, Active, AcceptErrors, DialErrors, Aborted, Spliced, Copied, HeadersRefused uint64

	BytesIn, BytesOut, DialRefused uint64
}

// Options are what a test asks of the engine.
type Options struct {
	DialTimeout  time.Duration
	KeepAlive    net.KeepAliveConfig
	AcceptErrors []syscall.Errno // what the first calls of accept(2) are made to answer
	SocketErrors []syscall.Errno // what the first calls of socket(2) for backends are made to answer
	Report       func(op string, client, backend netip.AddrPort, err error)

	ProxyProtocol       uint8          // version of the header for the backend; 0: none
	AcceptProxyProtocol []netip.Prefix // clients that begin with a header
	Observe             func(connection.Connection)
}

// Engine starts an engine that relays from a listener, which it owns from then on, to a backend.
type Engine struct {
	Start func(t *testing.T, l *net.TCPListener, backend netip.AddrPort, o Options) Proxy
	Paths Paths
}

// Paths says how an engine is expected to move bytes.
type Paths struct{ Small, Streams Path }

// Path is a way for bytes to take.
type Path int

// The paths: through recv and send, or through splice(2).
const (
	Copied Path = iota
	Spliced
)

// behaviour is one test of the suite.
type behaviour struct {
	name string
	run  func(*testing.T, Engine)
}

// waiting is a test that mostly waits: it does so beside the others of its kind.
func waiting(run func(*testing.T, Engine)) func(*testing.T, Engine) {
	return func(t *testing.T, e Engine) {
		t.Parallel()
		run(t, e)
	}
}

// Run runs the suite over an engine.
func Run(t *testing.T, e Engine) {
	for _, b := range append(systemTests, []behaviour{
		{"BytesIntactBothWays", bytesIntactBothWays},
		{"BytesAreCountedEachWay", bytesAreCountedEachWay},
		{"PathOfSmallMessages", pathOfSmallMessages},
		{"PathOfStreams", pathOfStreams},
		{"HalfCloseByClient_moby27539", halfCloseByClient},
		{"HalfCloseByBackend_moby27539", halfCloseByBackend},
		{"EndWithoutBytes", endWithoutBytes},
		{"SlowReaderBoundsMemory", slowReaderBoundsMemory},
		{"ResetByClient", resetByClient},
		{"ResetByBackend", resetByBackend},
		{"ResetWhileTheOtherSideIsSilent_libnetwork2465", resetWhileSilent},
		{"ResetAfterHalfClose", resetAfterHalfClose},
		{"OrdinaryCloseIsNoReset", ordinaryCloseIsNoReset},
		{"BackendRefuses_moby16976", backendRefuses},
		{"BackendUnreachable", backendUnreachable},
		{"DescriptorsComeBack_moby6402", descriptorsComeBack},
		{"DescriptorsDoNotComeBack", descriptorsDoNotComeBack},
		{"SocketsAreForbidden", socketsAreForbidden},
		{"AcceptIsForbidden", acceptIsForbidden},
		{"ThousandConnections", thousandConnections},
		{"CloseEndsConnections", closeEndsConnections},
		{"HeaderToBackend_moby15086", headerToBackend},
		{"HeaderThenBytesBothWays", headerThenBytes},
		{"HeaderThenEnd", headerThenEnd},
		{"HeaderAccepted", headerAccepted},
		{"HeaderPassedOn", headerPassedOn},
		{"HeaderRefused", headerRefused},
		{"HeaderOfNobody", headerOfNobody},
		{"HeaderKeepsNobodyWaiting", headerKeepsNobodyWaiting},
		{"HeaderTooLate", waiting(headerTooLate)},
		{"HeaderOfNobodyTrusted", headerOfNobodyTrusted},
		{"WhoEndedAndWhy", whoEndedAndWhy},
	}...) {
		t.Run(b.name, func(t *testing.T) { b.run(t, e) })
	}
}

// start runs a backend that serves each connection with serve, and the engine in front of it.
func start(t *testing.T, e Engine, serve func(*net.TCPConn)) Proxy {
	t.Helper()
	return startWith(t, e, Options{}, rig.Backend(t, serve))
}

// startWith runs the engine in front of a backend, on a fresh port of the loopback interface.
func startWith(t *testing.T, e Engine, o Options, backend netip.AddrPort) Proxy {
	t.Helper()
	return startOn(t, e, o, rig.Listen(t, rig.Loopback), backend)
}

func startOn(t *testing.T, e Engine, o Options, l *net.TCPListener, backend netip.AddrPort) Proxy {
	t.Helper()
	addr := rig.Address(l)
	p := e.Start(t, l, backend, o)
	p.Addr = addr
	t.Cleanup(p.Close)
	return p
}
