package splice

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/dialerror"
)

// DefaultDialTimeout bounds the dial of a backend when Options.DialTimeout is zero.
const DefaultDialTimeout = 10 * time.Second

// Policy says when a pump splices.
type Policy uint8

const (
	// Adaptive splices while traffic streams and copies while it is small.
	Adaptive Policy = iota
	// Always splices whenever a pipe is to be had.
	Always
	// Never copies every byte.
	Never
)

// Options are the settings of a Port. The zero value is useful.
type Options struct {
	// DialTimeout bounds the time from accept to an established backend connection, that for the client's own header
	// (AcceptProxyProtocol) included, and how long clients wait in the
	// kernel's queue for descriptors that have run out, or for an accept that is forbidden. Zero means
	// DefaultDialTimeout.
	DialTimeout time.Duration

	// KeepAlive says when a peer that vanished is noticed, on both legs: after Idle without a sign of it, by Count
	// probes without an answer, each Interval after the one before. It is always on, and durations are rounded up to
	// seconds. Zero fields mean what the Go standard library sets: 15 s, 9 probes, 15 s. While data is under way the
	// kernel does not probe but retransmits; since Linux 6.15 it does so every Interval at least, 15 times, which takes
	// about as long (before, a quarter of an hour). A peer that answers but does not read is never given up.
	KeepAlive net.KeepAliveConfig

	// Dial, if not nil, opens the connection to a backend in place of the engine, for backends that are to be reached in
	// another network namespace or through something else: it gives a TCP or unix stream socket, connected or connecting,
	// which the engine then owns. Its error resets the client, and is reported. It is called on the event loops, when a client
	// has been accepted, and must not block. Source ports are then its affair.
	Dial func(backend netip.AddrPort) (fd int, err error)

	// Policy says when bytes go through splice(2).
	Policy Policy

	// ProxyProtocol has each backend connection begin with a header that tells the client's address and the one that it
	// connected to, of version 1 or 2 of the PROXY protocol. Zero is no header. Its bytes are counted as copied.
	ProxyProtocol uint8

	// AcceptProxyProtocol are the proxies whose connections begin with such a header. It is taken off, and what it tells
	// stands for the client from then on (the TLVs of version 2 are dropped); a connection without it is reset. Other
	// clients' bytes are not looked at. Masked prefixes of IPv4 or IPv6, without zones.
	AcceptProxyProtocol []netip.Prefix

	// Transparent has each backend see its client's own address in place of this host's (IP_TRANSPARENT), from a port of the
	// kernel's choice. The client is the one that its PROXY header tells of, if it is to begin with one. Who cannot be shown is
	// reset, counted and reported: a client of another family than the backend's, on the backend's own network, or of an
	// address that means nothing there. Clients by the loopback interface are this host, and look like it. It takes
	// CAP_NET_ADMIN or CAP_NET_RAW, and routes that bring answers to clients' addresses to this host, which
	// docs/client-addresses.md has; whether there are is not looked. It does not go with Dial.
	Transparent bool

	// Report is told of every failure: the operation ("accept", "proxy header", "transparent", "dial",
	// "relay"), the client where there
	// is one, the backend, and the cause. A reset by a peer is not a failure. It is called on the event loop of the connection, so on
	// several at once, and must not block. No lock is held: it may ask for Stats, and may close ports. Nil: failures are
	// only counted.
	Report func(op string, client, backend netip.AddrPort, err error)

	// Ended is told why, once, if the port stops accepting by itself: its socket does not listen any more, or accept has been
	// forbidden (EPERM, EACCES) for the dial timeout. Connections that exist go on. It is called as Report is. Nil: nobody is
	// told.
	Ended func(error)

	// Observe is told of every connection when it is accepted, when its backend is connected and when it has ended: who
	// ended it and why, and how many bytes it has carried. It is called as Report is, and what holds there holds here.
	// Times are of the event loop's clock, which is read once a turn: what begins and ends within one took no time. Nil:
	// nobody is told, and no clock is read.
	Observe func(Connection)
}

// Connection is what Options.Observe is told of.
type Connection = connection.Connection

// Client is a connection through a Port, as Port.Clients tells of it.
type Client = connection.Traffic

func (o Options) withDefaults() Options {
	o.DialTimeout = orDefault(o.DialTimeout, DefaultDialTimeout)
	k := &o.KeepAlive
	k.Idle, k.Interval = orDefault(k.Idle, 15*time.Second), orDefault(k.Interval, 15*time.Second)
	k.Count = orDefault(k.Count, 9)
	if o.Report == nil {
		o.Report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	}
	return o
}

func orDefault[T time.Duration | int](value, standard T) T {
	if value <= 0 {
		return standard
	}
	return value
}

// Stats are the counters of a Port, or of all ports that an Engine ever had.
type Stats struct {
	Loops        uint64 // event loops now (of an Engine)
	Accepted     uint64 // connections accepted
	Active       uint64 // pairs that exist now
	AcceptErrors uint64 // calls of accept that failed, and clients that were reset because descriptors had run out
	Aborted      uint64 // pairs that ended by a reset or another failure of a leg
	BytesIn      uint64 // bytes that reached backends
	BytesOut     uint64 // bytes that reached clients
	Spliced      uint64 // of both, those that did by splice(2)
	Copied       uint64 // of both, those that did by send(2)
	Pipes        uint64 // pipes open now (of an Engine)
	PipesRefused uint64 // times that no usable pipe was to be had and the pump went on copying
	SourcePorts  uint64 // dials from a source port of our choice, because there were very many (moby#47537)

	dialerror.Counts // of backends that refused, could not be reached or did not answer in time; their clients were reset

	HeadersRefused uint64 // clients that were reset because their PROXY header was missing or wrong
	SourceRefused  uint64 // clients that were reset because the backend could not be shown their address
}

// String gives the counters as "name=value" words.
func (s Stats) String() string {
	return fmt.Sprintf("loops=%d accepted=%d active=%d accept-errors=%d %v "+
		"aborted=%d bytes-in=%d bytes-out=%d spliced=%d copied=%d pipes=%d "+
		"pipes-refused=%d source-ports=%d headers-refused=%d source-refused=%d",
		s.Loops, s.Accepted, s.Active, s.AcceptErrors, s.Counts, s.Aborted, s.BytesIn, s.BytesOut, s.Spliced, s.Copied, s.Pipes,
		s.PipesRefused, s.SourcePorts, s.HeadersRefused, s.SourceRefused)
}
