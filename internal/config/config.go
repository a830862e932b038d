// Package config turns the command line, the environment and a file into one Config.
//
// dockerd fixes the command line, so each option of ours can also be set by the environment, which the proxy
// inherits from dockerd, and by a file: -dial-timeout is PORTSPLICE_DIAL_TIMEOUT, and the key "dial-timeout". Of the
// layers that have an option the first one wins:
//
//	the flag
//	the variable; an empty one is none
//	the sections of the file that the port is in; they agree, or the port is refused
//	the file's top level
//	the default
//
// What is wrong with the file keeps a port from being served if it is of that port: a fault in a section is of the
// ports that the section names, and any other is of every port.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
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

// Bypass says whether local clients reach the backend without the proxy.
type Bypass string

// BypassAuto is where that can be.
const (
	BypassOff     Bypass = "off"
	BypassAuto    Bypass = "auto"
	BypassRequire Bypass = "require"
)

// ProxyProtocol is the version of the PROXY header that backends are sent.
type ProxyProtocol string

// ProxyOff is no header.
const (
	ProxyOff ProxyProtocol = ""
	ProxyV1  ProxyProtocol = "v1"
	ProxyV2  ProxyProtocol = "v2"
)

// Format says how lines for people are written on standard error.
type Format string

// The formats. Text is a sentence a line, JSON an object.
const (
	Text Format = "text"
	JSON Format = "json"
)

// Switch is off or on.
type Switch string

// The switch's positions.
const (
	Off Switch = "off"
	On  Switch = "on"
)

// Config is everything that the program is told.
type Config struct {
	Protocol    listener.Protocol
	Frontend    netip.AddrPort // the host's side
	Backend     netip.AddrPort // the container's side
	UseListenFD bool           // descriptor 4 is the frontend's socket
	Version     bool           // print the version and do nothing else
	Resumed     bool           // a worker has served the port before: nobody would hear if it were refused now

	Engine      Engine
	Policy      Policy
	DialTimeout time.Duration
	UDPTimeout  time.Duration
	MaxFlows    int // of UDP; zero: 8192, or what descriptors and source ports allow if that is less
	UDPBlocks   Blocks
	LocalBypass Bypass // of TCP
	LogFormat   Format
	AccessLog   Switch

	ProxyProtocol       ProxyProtocol  // of TCP
	AcceptProxyProtocol []netip.Prefix // of TCP: the clients that begin with a PROXY header
	Transparent         Switch         // of TCP and UDP: backends see their clients' addresses

	Warnings []string // what was said and means nothing; the port is served all the same
}

// ErrHelp is returned when the usage was asked for and has been printed.
var ErrHelp = flag.ErrHelp

// Parse reads the arguments after the program's name, an environment as os.Environ gives it, and the file. Its errors
// name the flag, the variable or the line, the value and what is wrong with it; those of the file are *FileError. The
// usage, when asked for, goes to usage.
func Parse(args, environment []string, usage io.Writer) (Config, error) {
	c, _, err := parseAll(args, environment, usage)
	return c, err
}

func parseAll(args, environment []string, usage io.Writer) (c Config, settings []Setting, err error) {
	var r raw
	flags := c.defaults()
	flags.SetOutput(io.Discard) // errors are returned, and the usage is printed below
	r.declare(flags)
	flags.BoolVar(&c.UseListenFD, "use-listen-fd", false, "descriptor 4 is the bound socket of the frontend")
	flags.BoolVar(&c.Version, "v", false, "print the version and exit")
	flags.BoolVar(&c.Version, "version", false, "print the version and exit")
	err = flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		printUsage(usage, flags)
		return Config{}, nil, ErrHelp
	}
	if err != nil {
		return Config{}, nil, err
	}
	if c.Version {
		return c, nil, nil
	}
	if flags.NArg() > 0 {
		return Config{}, nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err := r.check(&c); err != nil {
		return Config{}, nil, err
	}
	onCommandLine := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { onCommandLine[f.Name] = true })
	settings, c.Warnings, err = settle(flags, c.Protocol, c.Frontend, onCommandLine, environment)
	if err != nil {
		return Config{}, nil, err
	}
	if err := c.checkTogether(settings); err != nil {
		return Config{}, nil, err
	}
	return c, settings, nil
}

// checkHeaders checks what PROXY headers do not go with.
func (c *Config) checkHeaders() error {
	var option string
	switch {
	case c.ProxyProtocol != ProxyOff:
		option = "-proxy-protocol"
	case len(c.AcceptProxyProtocol) > 0:
		option = "-accept-proxy-protocol"
	default:
		return nil
	}
	if c.Protocol != listener.TCP { // of the command line: a variable is for all ports, and this has not been read
		return fmt.Errorf("%s: there is none for %s, only for tcp", option, c.Protocol)
	}
	return c.excludeBypass(option)
}

// checkTransparent checks what Transparent does not go with. Without a backend, as when only the file is looked at, no
// warning is of it.
func (c *Config) checkTransparent() error {
	switch {
	case c.Transparent != On:
		return nil
	case c.Protocol == listener.SCTP:
		return errors.New("-transparent: not for sctp, whose clients have several addresses at a time: " +
			"switch it off for the port, in the file")
	case c.Engine == Fallback:
		return errors.New("-transparent: not by -engine fallback")
	}
	if c.Backend.IsValid() && c.Frontend.Addr().Is4() != c.Backend.Addr().Is4() {
		c.Warnings = append(c.Warnings, fmt.Sprintf("-transparent: clients of %v, but for this host, are refused: "+
			"their addresses are of another family than the container's", c.Frontend))
	}
	return c.excludeBypass("-transparent")
}

// excludeBypass has clients not go around the proxy, as an option is for what goes through it.
func (c *Config) excludeBypass(option string) error {
	reason := goAround(option)
	switch c.LocalBypass {
	case BypassRequire:
		return fmt.Errorf("-local-bypass require: %s", reason)
	case BypassAuto:
		c.LocalBypass = BypassOff
		c.Warnings = append(c.Warnings, "-local-bypass auto: not here: "+reason)
	}
	return nil
}

func goAround(option string) string {
	return "clients that go around the proxy have no part in " + option
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

// defaults sets c's options to their defaults, and gives flags that set them.
func (c *Config) defaults() *flag.FlagSet {
	fs := flag.NewFlagSet("portsplice", flag.ContinueOnError)
	c.declare(fs)
	return fs
}

// options gives c's options as flags.
func (c *Config) options() *flag.FlagSet {
	now := *c
	fs := c.defaults()
	*c = now
	return fs
}

// declare declares the options that are ours; each is also a variable of the environment and a key of the file. An
// option that is added here is added to uses, too, and to live if a reload applies it.
func (c *Config) declare(fs *flag.FlagSet) {
	c.Engine = Auto
	fs.Var(oneOf[Engine]{&c.Engine, []Engine{Splice, Fallback, Auto}}, "engine",
		"how TCP moves: splice, fallback (which UDP has, too), or auto for the best that this system has")
	c.Policy = Adaptive
	fs.Var(oneOf[Policy]{&c.Policy, []Policy{Adaptive, Always, Never}}, "splice",
		"when the engine splice uses splice(2): adaptive (while traffic streams), always or never")
	c.DialTimeout = dialTimeout
	fs.Var(span{&c.DialTimeout}, "dial-timeout", "bound of a dial to the backend (TCP and SCTP)")
	c.UDPTimeout = 90 * time.Second // docker-proxy's
	fs.Var(span{&c.UDPTimeout}, "udp-timeout", "idle time after which a UDP flow is forgotten")
	fs.Var(count{&c.MaxFlows}, "max-flows", "bound of the UDP flows; 0 means 8192, or what descriptors and source ports allow if that is less")
	c.UDPBlocks = BlocksAuto
	fs.Var(oneOf[Blocks]{&c.UDPBlocks, []Blocks{BlocksAuto, BlocksOn, BlocksOff}}, "udp-blocks",
		"when UDP datagrams pass as blocks (UDP_SEGMENT): auto (where all receivers get them singly), on or off")
	c.LocalBypass = BypassOff
	fs.Var(oneOf[Bypass]{&c.LocalBypass, []Bypass{BypassOff, BypassAuto, BypassRequire}}, "local-bypass",
		"whether TCP clients of this host reach the container without the proxy: off, auto (where that can be) or require")
	fs.Var(oneOf[ProxyProtocol]{&c.ProxyProtocol, []ProxyProtocol{ProxyOff, ProxyV1, ProxyV2}}, "proxy-protocol",
		"version of the PROXY header that tells the container a TCP client's address: v1, v2, or empty for none")
	fs.Var(prefixes{&c.AcceptProxyProtocol}, "accept-proxy-protocol",
		"addresses and prefixes, by commas, of the proxies whose TCP connections begin with a PROXY header")
	c.Transparent = Off
	fs.Var(oneOf[Switch]{&c.Transparent, []Switch{Off, On}}, "transparent",
		"whether the container sees its clients' addresses (IP_TRANSPARENT), by routes of this host, and not of SCTP: off or on")
	c.LogFormat = Text
	fs.Var(oneOf[Format]{&c.LogFormat, []Format{Text, JSON}}, "log-format",
		"lines on standard error: text (sentences) or json (objects); the journal has fields always")
	c.AccessLog = Off
	fs.Var(oneOf[Switch]{&c.AccessLog, []Switch{Off, On}}, "access-log", "a line for each connection at its end: off or on")
}

// dialTimeout outlasts three lost requests in a row, which Linux sends after 0, 1, 3 and 7 s, and a short pause of the
// container. It is less than the 30 s that clients and health checks commonly wait, so that they learn what is wrong.
const dialTimeout = 10 * time.Second

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
	// A socket that dockerd bound has its zone already.
	if !c.UseListenFD && lacksZone(c.Frontend.Addr()) {
		return zoneError("host", c.Frontend.Addr())
	}
	if lacksZone(c.Backend.Addr()) {
		return zoneError("container", c.Backend.Addr())
	}
	if c.leadsBack() {
		return fmt.Errorf("the backend %v is the port itself (%v): each connection would make another", c.Backend, c.Frontend)
	}
	return nil
}

// leadsBack says whether the backend is the frontend for certain: the same address, or an address of this
// host with a frontend on all of them. The unspecified address as a destination is the loopback address.
func (c *Config) leadsBack() bool {
	front, back := c.Frontend.Addr(), c.Backend.Addr()
	if c.Frontend.Port() != c.Backend.Port() || front.Is4() != back.Is4() {
		return false
	}
	if back.IsUnspecified() {
		if back = netip.IPv6Loopback(); front.Is4() {
			back = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	return front == back || front.IsUnspecified() && (back.IsLoopback() || listener.Local(back))
}

// lacksZone says whether the address exists on every link, so that it is none without a zone (RFC 4007).
func lacksZone(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" }

func zoneError(side string, a netip.Addr) error {
	return fmt.Errorf("-%s-ip %v: a link-local address needs its zone, the interface: %v%%INTERFACE", side, a, a)
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

func printUsage(w io.Writer, all *flag.FlagSet) {
	var b strings.Builder
	b.WriteString(`portsplice serves one published port of a Docker host; dockerd starts it.

usage: portsplice -proto tcp|udp|sctp -host-ip IP -host-port N -container-ip IP -container-port N

`)
	all.SetOutput(&b)
	all.PrintDefaults()
	b.WriteString("\nFrom the environment, where the command line is dockerd's:\n")
	new(Config).defaults().VisitAll(func(f *flag.Flag) { fmt.Fprintf(&b, "  %s (-%s)\n", variable(f.Name), f.Name) })
	fmt.Fprintf(&b, "\nOr from %s, or the file that %s names: \"portsplicectl check\" reads it.\n", DefaultFile, fileVariable)
	b.WriteString(`
SIGINT and SIGTERM end the program, SIGUSR1 prints its counters on standard error,
or in the journal or syslog where that is /dev/null.
`)
	_, _ = io.WriteString(w, b.String()) // whoever asked has gone away
}
