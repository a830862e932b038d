package udp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/connection"
)

const (
	// DefaultTimeout is the idle time after which a flow is forgotten: what users of docker-proxy know.
	DefaultTimeout = 90 * time.Second

	// ceiling bounds a table that nobody sized, beside its share of the host's source ports (numbers.go).
	ceiling = 8192

	// dialAttempts bounds what one new client may cost the others when descriptors have run out: each attempt but the
	// last evicts a flow. One is enough unless another relay of this process takes the descriptor it freed.
	dialAttempts = 3

	// maxDatagram is larger than any datagram: a payload has at most 65,507 bytes over IPv4 and 65,527 over IPv6. A
	// read into as much is never cut short.
	maxDatagram = 64 << 10
)

// Blocks says when several datagrams may be passed on as one block (UDP_SEGMENT).
type Blocks uint8

// The zero value is where every receiver is sure to get them as single datagrams again.
const (
	BlocksAuto Blocks = iota
	BlocksOn
	BlocksOff
)

// Options are what a caller may choose. The zero value is ready to use.
type Options struct {
	Timeout  time.Duration // idle time after which a flow is forgotten; zero means DefaultTimeout
	MaxFlows int           // bound of the table; zero: three quarters of RLIMIT_NOFILE or of the source ports, at most 8192
	Blocks   Blocks        // of new flows; the portable relay makes none

	// Transparent has each flow speak from its client's address in place of this host's (IP_TRANSPARENT, Port alone). Who
	// cannot be shown so is dropped; see package transparent.
	Transparent bool

	// Report is told of failures: op is what was tried, client is invalid where the failure concerns none. It may be
	// called from several goroutines, for each failure (limiting the rate is up to it), and must not block. No lock is held
	// meanwhile: it may call what the relay has but Clients and Close, which wait for what has called it. (With Transparent, to
	// change the settings has the host's addresses read.) May be nil.
	Report func(op string, client, backend netip.AddrPort, err error)

	// Observe is told of flows: when one begins, if Follows says then that somebody wants to know, and in that case when it
	// has ended, and why. Bytes are those of payloads that have left. It is called as Report is. May be nil.
	Observe func(connection.Connection)
	Follows func() bool // may be nil if Observe is

	// Budget bounds the descriptors of ports that share a process. It is what a port begins with: SetOptions does not change
	// it. May be nil.
	Budget *budget.Descriptors

	guests int // flows up to which the kernel may choose a source port
}

// withDefaults checks the options and fills in what was left open.
func (o Options) withDefaults() (Options, error) {
	if o.Timeout < 0 || o.MaxFlows < 0 {
		return o, fmt.Errorf("udp: timeout %v, at most %d flows: below zero", o.Timeout, o.MaxFlows)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.guests == 0 {
		o.guests = o.MaxFlows
	}
	if o.MaxFlows == 0 {
		o.MaxFlows = max(1, min(ceiling, budget.Limit()/4*3))
		o.MaxFlows, o.guests = shareOfPorts(o.MaxFlows)
	}
	if o.Report == nil {
		o.Report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	}
	return o, nil
}

// checkBackend gives the address of a backend in the form that its family has.
func checkBackend(backend netip.AddrPort) (netip.AddrPort, error) {
	backend = netip.AddrPortFrom(backend.Addr().Unmap(), backend.Port())
	if !backend.IsValid() || backend.Port() == 0 {
		return backend, fmt.Errorf("udp: backend %v: not an address and port", backend)
	}
	return backend, nil
}

// stopwatch is a relay's clock: the time since now, never stepping back.
func stopwatch() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// local is the address a datagram was sent to. The zero value stands for an address that is unknown, or that no
// reply can leave from (multicast): the kernel then chooses.
type local struct {
	addr    [16]byte // an IPv4 address as IPv6 maps it
	ifindex uint32   // only for IPv6 link-local addresses, which mean nothing without their interface
}
