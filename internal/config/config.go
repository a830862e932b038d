// Package config turns the command line and the environment into one Config.
//
// dockerd fixes the command line, so each option of ours can also be set by the environment, which the proxy
// inherits from dockerd: -dial-timeout is PORTSPLICE_DIAL_TIMEOUT. The command line wins.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portsplice/portsplice/internal/listener"
)

// Engine is a way to move TCP.
type Engine string

// The engines. Auto is Splice where that is to be had, and Fallback elsewhere.
const (
	Auto     Engine = "auto"
	Splice   Engine = "splice"
	Fallback Engine = "fallback"
)

// Policy says when the engine splice uses splice(2).
type Policy string

// The policies. Adaptive is while traffic streams.
const (
	Adaptive Policy = "adaptive"
	Always   Policy = "always"
	Never    Policy = "never"
)

// Blocks says when several datagrams are passed on as one block.
type Blocks string

// BlocksAuto is where every receiver is sure to get single datagrams all the same.
const (
	BlocksAuto Blocks = "auto"
	BlocksOn   Blocks = "on"
	BlocksOff  Blocks = "off"
)

// Config is everything that the program is told.
type Config struct {
	Protocol    listener.Protocol
	Frontend    netip.AddrPort // the host's side
	Backend     netip.AddrPort // the container's side
	UseListenFD bool           // descriptor 4 is the frontend's socket
	Version     bool           // print the version and do nothing else

	Engine      Engine
	Policy      Policy
	DialTimeout time.Duration
	UDPTimeout  time.Duration
	MaxFlows    int // of UDP; zero: as many as descriptors allow
	UDPBlocks   Blocks
}

// ErrHelp is returned when the usage was asked for and has been printed.
var ErrHelp = flag.ErrHelp

// environmentPrefix begins the name of every variable that the program reads.
const environmentPrefix = "PORTSPLICE_"

// Parse reads the arguments after the program's name. Its errors name the flag or variable, its value and what is
// wrong with it. The usage, when asked for, goes to usage.
func Parse(args []string, getenv func(string) string, usage io.Writer) (Config, error) {
	var c Config
	var r raw
	dockerd := flag.NewFlagSet("portsplice", flag.ContinueOnError)
	dockerd.SetOutput(io.Discard) // errors are returned, and the usage is printed below
	r.declare(dockerd)
	dockerd.BoolVar(&c.UseListenFD, "use-listen-fd", false, "descriptor 4 is the bound socket of the frontend")
	dockerd.BoolVar(&c.Version, "v", false, "print the version and exit")
	dockerd.BoolVar(&c.Version, "version", false, "print the version and exit")
	ours := flag.NewFlagSet("portsplice", flag.ContinueOnError)
	c.declare(ours)
	environment := fromEnvironment(ours, getenv)
	ours.VisitAll(func(f *flag.Flag) { dockerd.Var(f.Value, f.Name, f.Usage) })
	err := dockerd.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		printUsage(usage, dockerd, ours)
		return Config{}, ErrHelp
	}
	if err != nil {
		return Config{}, err
	}
	if c.Version {
		return c, nil
	}
	if environment != nil {
		return Config{}, environment
	}
	if dockerd.NArg() > 0 {
		return Config{}, fmt.Errorf("unexpected argument %q", dockerd.Arg(0))
	}
	return c, r.check(&c)
}

// raw is what dockerd passes, as it stands on the command line.
type raw struct {
	protocol, hostIP, containerIP string
	hostPort, containerPort       int
}

func (r *raw) declare(fs *flag.FlagSet) {
	fs.StringVar(&r.protocol, "proto", "tcp", "protocol: tcp, udp or sctp")
	fs.StringVar(&r.hostIP, "host-ip", "0.0.0.0", "address of the frontend; :: means IPv6 only")
	fs.IntVar(&r.hostPort, "host-port", -1, "port of the frontend")
	fs.StringVar(&r.containerIP, "container-ip", "0.0.0.0", "address of the backend")
	fs.IntVar(&r.containerPort, "container-port", -1, "port of the backend")
}

// declare declares the options that are ours; each is also a variable of the environment.
func (c *Config) declare(fs *flag.FlagSet) {
	c.Engine = Auto
	fs.Var(oneOf[Engine]{&c.Engine, []Engine{Splice, Fallback, Auto}}, "engine",
		"how TCP moves: splice, fallback (which UDP has, too), or auto for the best that this system has")
	c.Policy = Adaptive
	fs.Var(oneOf[Policy]{&c.Policy, []Policy{Adaptive, Always, Never}}, "splice",
		"when the engine splice uses splice(2): adaptive (while traffic streams), always or never")
	fs.DurationVar(&c.DialTimeout, "dial-timeout", 10*time.Second, "bound of a dial to the backend (TCP and SCTP)")
	fs.DurationVar(&c.UDPTimeout, "udp-timeout", 90*time.Second, "idle time after which a UDP flow is forgotten")
	fs.IntVar(&c.MaxFlows, "max-flows", 0, "bound of the UDP flows; 0 means as many as descriptors allow")
	c.UDPBlocks = BlocksAuto
	fs.Var(oneOf[Blocks]{&c.UDPBlocks, []Blocks{BlocksAuto, BlocksOn, BlocksOff}}, "udp-blocks",
		"when UDP datagrams pass as blocks (UDP_SEGMENT): auto (where all receivers get them singly), on or off")
}

func fromEnvironment(fs *flag.FlagSet, getenv func(string) string) error {
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		name := variable(f.Name)
		if value := getenv(name); value != "" {
			if err := f.Value.Set(value); err != nil {
				errs = append(errs, fmt.Errorf("environment: %s=%q: %w", name, value, err))
			}
		}
	})
	return errors.Join(errs...)
}

// variable is the name of an option in the environment.
func variable(option string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// check turns what dockerd passed into values, and checks all of it.
func (r *raw) check(c *Config) error {
	c.Protocol = listener.Protocol(r.protocol)
	switch c.Protocol {
	case listener.TCP, listener.UDP, listener.SCTP:
	default:
		return fmt.Errorf("-proto %q: unknown protocol (tcp, udp and sctp are known)", r.protocol)
	}
	var err error
	if c.Frontend, err = address("host", r.hostIP, r.hostPort); err != nil {
		return err
	}
	if c.Backend, err = address("container", r.containerIP, r.containerPort); err != nil {
		return err
	}
	for _, d := range []struct {
		option string
		value  time.Duration
	}{{"dial-timeout", c.DialTimeout}, {"udp-timeout", c.UDPTimeout}} {
		if d.value <= 0 {
			return fmt.Errorf("-%s %v: must be more than zero", d.option, d.value)
		}
	}
	if c.MaxFlows < 0 {
		return fmt.Errorf("-max-flows %d: must not be negative", c.MaxFlows)
	}
	return nil
}

func address(side, ip string, port int) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(ip)
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("-%s-ip %q: not an IP address", side, ip)
	case port == -1:
		return netip.AddrPort{}, fmt.Errorf("-%s-port: missing", side)
	case port < 1 || port > 65535:
		return netip.AddrPort{}, fmt.Errorf("-%s-port %d: not a port (1 to 65535)", side, port)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// oneOf is a flag.Value for an option with a few named values.
type oneOf[T ~string] struct {
	value *T
	known []T
}

func (o oneOf[T]) Set(value string) error {
	if !slices.Contains(o.known, T(value)) {
		return fmt.Errorf("one of %q is known", o.known)
	}
	*o.value = T(value)
	return nil
}

func (o oneOf[T]) String() string {
	if o.value == nil {
		return "" // flag compares with the zero value
	}
	return string(*o.value)
}

func printUsage(w io.Writer, all, ours *flag.FlagSet) {
	var b strings.Builder
	b.WriteString(`portsplice serves one published port of a Docker host; dockerd starts it.

usage: portsplice -proto tcp|udp|sctp -host-ip IP -host-port N -container-ip IP -container-port N

`)
	all.SetOutput(&b)
	all.PrintDefaults()
	b.WriteString("\nFrom the environment, where the command line is dockerd's:\n")
	ours.VisitAll(func(f *flag.Flag) { fmt.Fprintf(&b, "  %s (-%s)\n", variable(f.Name), f.Name) })
	b.WriteString("\nSIGINT and SIGTERM end the program, SIGUSR1 prints its counters on standard error.\n")
	_, _ = io.WriteString(w, b.String()) // whoever asked has gone away
}
