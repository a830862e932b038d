// Package relay starts what serves a published port: the one of the engines and relays that its protocol, the
// system and the user's choice call for.
package relay

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/sctp"
	"github.com/portsplice/portsplice/internal/udp"
	"github.com/portsplice/portsplice/splice"
)

// Report is told of failures; see the Options of the engines.
type Report = func(op string, client, backend netip.AddrPort, err error)

// Relay serves a port from Start to the end of the process.
type Relay struct {
	Engine string              // what moves the bytes: splice, fallback, udp, udp-portable or sctp
	Stats  func() fmt.Stringer // the counters, as "name=value" words
	Ended  <-chan error        // receives why, if serving ever ends by itself; nil when it cannot
}

// Start serves the port that socket stands for, and owns the socket from then on.
func Start(c config.Config, socket *listener.Socket, report Report) (*Relay, error) {
	switch c.Protocol {
	case listener.UDP:
		return startUDP(c, socket, report)
	case listener.SCTP:
		return startSCTP(c, socket, report)
	default:
		return startTCP(c, socket, report)
	}
}

var policies = map[config.Policy]splice.Policy{
	config.Adaptive: splice.Adaptive,
	config.Always:   splice.Always,
	config.Never:    splice.Never,
}

func startTCP(c config.Config, socket *listener.Socket, report Report) (*Relay, error) {
	if c.Engine == config.Fallback {
		return startFallback(c, socket, report)
	}
	engine, err := splice.New(splice.Options{DialTimeout: c.DialTimeout, Policy: policies[c.Policy], Report: report})
	switch {
	case err != nil && c.Engine == config.Auto: // whatever it is: no byte has moved
		if !errors.Is(err, errors.ErrUnsupported) {
			report("engine", netip.AddrPort{}, c.Backend, err)
		}
		return startFallback(c, socket, report)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("engine splice: %w", err), socket.Close())
	}
	port, err := engine.Add(socket.Take(), c.Backend)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return &Relay{Engine: "splice", Stats: func() fmt.Stringer { return engine.Stats() }, Ended: port.Ended()}, nil
}

func startFallback(c config.Config, socket *listener.Socket, report Report) (*Relay, error) {
	l, err := socket.Listener()
	if err != nil {
		return nil, fmt.Errorf("engine fallback: %w", err)
	}
	engine := fallback.New(fallback.Options{DialTimeout: c.DialTimeout, Report: report})
	port, err := engine.Add(l, c.Backend)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return &Relay{Engine: "fallback", Stats: func() fmt.Stringer { return engine.Stats() }, Ended: port.Ended()}, nil
}

var blocks = map[config.Blocks]udp.Blocks{
	config.BlocksAuto: udp.BlocksAuto,
	config.BlocksOn:   udp.BlocksOn,
	config.BlocksOff:  udp.BlocksOff,
}

func startUDP(c config.Config, socket *listener.Socket, report Report) (*Relay, error) {
	options := udp.Options{Timeout: c.UDPTimeout, MaxFlows: c.MaxFlows, Blocks: blocks[c.UDPBlocks], Report: report}
	supported := udp.Supported()
	switch {
	case c.Engine == config.Fallback || c.Engine == config.Auto && supported != nil:
		return startPortableUDP(c, socket, options)
	case supported != nil:
		return nil, errors.Join(supported, socket.Close())
	}
	group, err := eventloop.New(eventloop.Options{})
	switch {
	case err != nil && c.Engine == config.Auto: // as for TCP
		report("engine", netip.AddrPort{}, c.Backend, err)
		return startPortableUDP(c, socket, options)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("udp: %w", err), socket.Close())
	}
	port, err := udp.New(group, socket.Take(), c.Backend, options)
	if err != nil {
		group.Close()
		return nil, err
	}
	return &Relay{Engine: "udp", Stats: func() fmt.Stringer { return port.Stats() }}, nil
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
	return &Relay{Engine: "udp-portable", Stats: func() fmt.Stringer { return r.Stats() }, Ended: serve(r.Serve)}, nil
}

func startSCTP(c config.Config, socket *listener.Socket, report Report) (*Relay, error) {
	group, err := eventloop.New(eventloop.Options{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sctp: %w", err), socket.Close())
	}
	port, err := sctp.New(group, socket.Take(), c.Backend, sctp.Options{DialTimeout: c.DialTimeout, Report: report})
	if err != nil {
		group.Close()
		return nil, err
	}
	return &Relay{Engine: "sctp", Stats: func() fmt.Stringer { return port.Stats() }, Ended: port.Ended()}, nil
}

func serve(run func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	return ended
}
