// Package relay starts what serves a published port: the one of the engines and relays that its protocol, the
// system and the user's choice call for.
package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/sctp"
	"github.com/portsplice/portsplice/internal/transparent"
	"github.com/portsplice/portsplice/internal/udp"
	"github.com/portsplice/portsplice/splice"
)

// Audience is who is told of what happens at a port; see the Options of the engines.
type Audience struct {
	Report  func(op string, client, backend netip.AddrPort, err error)
	Observe func(connection.Connection) // nil: nobody
	Follows func() bool                 // whether Observe is to be told of a UDP flow that begins; nil if Observe is
	Ended   func(error)                 // told why, if serving ends by itself; nil: nobody
}

// Relay is what serves a port.
type Relay struct {
	Engine string              // what moves the bytes: splice, fallback, udp, udp-portable or sctp
	Stats  func() fmt.Stringer // the port's counters, as "name=value" words

	// More tells of counters beside the engine's, for whoever has started it to set before anybody asks. May be nil.
	More func(tell func(name string, value uint64))

	Close  func()        // frees the frontend's address; connections that exist go on
	Abort  func()        // is Close, and resets the connections
	Active func() uint64 // how many connections there are; zero where Close leaves none

	// Set has the port go on with other options, which differ from those it has only in what can change while connections
	// live (config.Config.Adopt). An error says why it cannot; then nothing has changed.
	Set func(config.Config) error

	// Clients tells of the connections and UDP flows that have moved the most bytes, most of them at the most.
	Clients func(most int) []connection.Traffic
}

// Counters are those of Stats and More.
func (r *Relay) Counters() string {
	text := r.Stats().String()
	if r.More != nil {
		r.More(func(name string, value uint64) { text += fmt.Sprintf(" %s=%d", name, value) })
	}
	return text
}

// Line is what SIGUSR1 asks for.
func (r *Relay) Line() string { return fmt.Sprintf("stats engine=%s %s", r.Engine, r.Counters()) }

// Host is what the ports of a process share: the event loops, and the engine for TCP that is on them. Its zero value is
// ready; what no port needs is not made.
type Host struct {
	Budget *budget.Descriptors // of descriptors; nil: no port leaves any to others

	mu     sync.Mutex
	group  *eventloop.Group
	engine *splice.Engine
}

// Start serves the port that socket stands for, and owns the socket from then on.
func (h *Host) Start(c config.Config, socket *listener.Socket, told Audience) (*Relay, error) {
	if c.Transparent == config.On {
		doubt, err := transparent.Answered(c.Backend.Addr())
		if err != nil && !c.Resumed {
			return nil, errors.Join(fmt.Errorf("-transparent: %w", err), socket.Close())
		}
		if doubt = errors.Join(doubt, err); doubt != nil {
			told.Report("transparent", netip.AddrPort{}, c.Backend, doubt)
		}
	}
	switch c.Protocol {
	case listener.UDP:
		return h.startUDP(c, socket, told)
	case listener.SCTP:
		return h.startSCTP(c, socket, told)
	default:
		return h.startTCP(c, socket, told)
	}
}

// Loops gives the event loops.
func (h *Host) Loops() (_ *eventloop.Group, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.group == nil {
		h.group, err = eventloop.New(eventloop.Options{})
	}
	return h.group, err
}

// Close ends what the ports share. They have been aborted before.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.engine != nil {
		_ = h.engine.Close() // it has no ports to complain of
	}
	if h.group != nil {
		h.group.Close()
	}
}

// splice gives the engine.
func (h *Host) splice() (*splice.Engine, error) {
	h.mu.Lock()
	engine := h.engine
	h.mu.Unlock()
	if engine != nil {
		return engine, nil
	}
	if err := splice.Supported(); err != nil { // without loops that nobody needs
		return nil, err
	}
	group, err := h.Loops()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.engine == nil {
		h.engine, err = splice.On(group, splice.Options{}, h.Budget)
	}
	return h.engine, err
}

// portable says whether what runs everywhere may take the place of what is for Linux.
func portable(c config.Config) bool { return c.Engine == config.Auto && c.Transparent != config.On }

var policies = map[config.Policy]splice.Policy{
	config.Adaptive: splice.Adaptive,
	config.Always:   splice.Always,
	config.Never:    splice.Never,
}

var versions = map[config.ProxyProtocol]uint8{config.ProxyOff: 0, config.ProxyV1: 1, config.ProxyV2: 2}

func (h *Host) startTCP(c config.Config, socket *listener.Socket, told Audience) (*Relay, error) {
	if c.Engine == config.Fallback {
		return startFallback(c, socket, told)
	}
	engine, err := h.splice()
	switch {
	case err != nil && portable(c): // whatever it is: no byte has moved
		if !errors.Is(err, errors.ErrUnsupported) {
			told.Report("engine", netip.AddrPort{}, c.Backend, err)
		}
		return startFallback(c, socket, told)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("engine splice: %w", err), socket.Close())
	}
	options := func(c config.Config) splice.Options {
		return splice.Options{DialTimeout: c.DialTimeout, Policy: policies[c.Policy], Report: told.Report, Ended: told.Ended,
			Observe: told.Observe, ProxyProtocol: versions[c.ProxyProtocol], AcceptProxyProtocol: c.AcceptProxyProtocol,
			Transparent: c.Transparent == config.On}
	}
	port, err := engine.AddWith(socket.Take(), c.Backend, options(c))
	if err != nil {
		return nil, err
	}
	return &Relay{
		Engine: "splice",
		Stats: func() fmt.Stringer {
			own := port.Stats()
			own.Loops, own.Pipes = engine.Shared()
			return own
		},
		Close:  func() { _ = port.Close() }, // the listener is gone, whatever close(2) says
		Abort:  func() { _ = port.Abort() },
		Active: func() uint64 { return port.Stats().Active },
		Set:    func(c config.Config) error { return port.SetOptions(options(c)) },

		Clients: port.Clients,
	}, nil
}

func startFallback(c config.Config, socket *listener.Socket, told Audience) (*Relay, error) {
	l, err := socket.Listener()
	if err != nil {
		return nil, fmt.Errorf("engine fallback: %w", err)
	}
	options := func(c config.Config) fallback.Options {
		return fallback.Options{DialTimeout: c.DialTimeout, Report: told.Report, Ended: told.Ended, Observe: told.Observe,
			ProxyProtocol: versions[c.ProxyProtocol], AcceptProxyProtocol: c.AcceptProxyProtocol}
	}
	engine := fallback.New(options(c))
	port, err := engine.Add(l, c.Backend)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return &Relay{
		Engine: "fallback",
		Stats:  func() fmt.Stringer { return engine.Stats() },
		Close:  func() { _ = port.Close() },
		Abort:  func() { _ = engine.Close() },
		Active: func() uint64 { return engine.Stats().Active },
		Set:    func(c config.Config) error { return engine.SetOptions(options(c)) },

		Clients: engine.Clients,
	}, nil
}

var blocks = map[config.Blocks]udp.Blocks{
	config.BlocksAuto: udp.BlocksAuto,
	config.BlocksOn:   udp.BlocksOn,
	config.BlocksOff:  udp.BlocksOff,
}

func (h *Host) startUDP(c config.Config, socket *listener.Socket, told Audience) (*Relay, error) {
	options := func(c config.Config) udp.Options {
		return udp.Options{Timeout: c.UDPTimeout, MaxFlows: c.MaxFlows, Blocks: blocks[c.UDPBlocks],
			Transparent: c.Transparent == config.On, Report: told.Report, Observe: told.Observe, Follows: told.Follows, Budget: h.Budget}
	}
	supported := udp.Supported()
	switch {
	case c.Engine == config.Fallback || c.Engine == config.Auto && supported != nil:
		return startPortableUDP(c, socket, options(c))
	case supported != nil:
		return nil, errors.Join(supported, socket.Close())
	}
	group, err := h.Loops()
	switch {
	case err != nil && portable(c): // as for TCP
		told.Report("engine", netip.AddrPort{}, c.Backend, err)
		return startPortableUDP(c, socket, options(c))
	case err != nil:
		return nil, errors.Join(fmt.Errorf("udp: %w", err), socket.Close())
	}
	port, err := udp.New(group, socket.Take(), c.Backend, options(c))
	if err != nil {
		return nil, err
	}
	r := ofFlows("udp", func() fmt.Stringer { return port.Stats() }, func() { _ = port.Close() })
	r.Set = func(c config.Config) error { return port.SetOptions(options(c)) }
	r.Clients = port.Clients
	return r, nil
}

func startPortableUDP(c config.Config, socket *listener.Socket, options udp.Options) (*Relay, error) {
	conn, err := socket.UDPConn()
	if err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	r, err := udp.NewPortable(conn, c.Backend, options)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go func() { _ = r.Serve() }() // until it is closed: what else happens is reported
	relay := ofFlows("udp-portable", func() fmt.Stringer { return r.Stats() }, func() { _ = r.Close() })
	relay.Set = func(next config.Config) error {
		if next.UDPTimeout != c.UDPTimeout || next.MaxFlows != c.MaxFlows || next.UDPBlocks != c.UDPBlocks {
			return errPortable
		}
		return nil
	}
	relay.Clients = r.Clients
	return relay, nil
}

// errPortable is why a port of the portable relay for UDP keeps its options.
var errPortable = errors.New("the portable relay keeps the options that it began with")

// ofFlows is a relay whose answers leave by the frontend, so that nothing is left once that is closed.
func ofFlows(engine string, stats func() fmt.Stringer, closed func()) *Relay {
	return &Relay{Engine: engine, Stats: stats, Close: closed, Abort: closed,
		Active: func() uint64 { return 0 }}
}

func (h *Host) startSCTP(c config.Config, socket *listener.Socket, told Audience) (*Relay, error) {
	group, err := h.Loops()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sctp: %w", err), socket.Close())
	}
	options := func(c config.Config) sctp.Options {
		return sctp.Options{DialTimeout: c.DialTimeout, Report: told.Report, Observe: told.Observe, Ended: told.Ended,
			Budget: h.Budget}
	}
	port, err := sctp.New(group, socket.Take(), c.Backend, options(c))
	if err != nil {
		return nil, err
	}
	return &Relay{
		Engine: "sctp",
		Stats:  func() fmt.Stringer { return port.Stats() },
		Close:  port.Close,
		Abort:  port.Abort,
		Active: func() uint64 { return port.Stats().Active },
		Set:    func(c config.Config) error { port.SetOptions(options(c)); return nil },

		Clients: port.Clients,
	}, nil
}
