package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portsplice/portsplice/internal/listener"
)

func parse(args string, environment map[string]string) (Config, string, error) {
	var usage strings.Builder
	entries := []string{"PORTSPLICE_CONFIG=" + filepath.Join(os.TempDir(), "none", "portsplice.json")} // not this machine's
	for name, value := range environment {
		entries = append(entries, name+"="+value)
	}
	c, err := Parse(strings.Fields(args), entries, &usage)
	return c, usage.String(), err
}

func TestParse(t *testing.T) {
	base := Config{
		Protocol:    listener.TCP,
		Frontend:    netip.MustParseAddrPort("0.0.0.0:3005"),
		Backend:     netip.MustParseAddrPort("172.17.0.2:80"),
		Engine:      Auto,
		Policy:      Adaptive,
		DialTimeout: 10 * time.Second,
		UDPTimeout:  90 * time.Second,
		UDPBlocks:   BlocksAuto,
		LocalBypass: BypassOff,
		LogFormat:   Text,
		AccessLog:   Off,
		Transparent: Off,
	}
	with := func(change func(*Config)) Config {
		c := base
		change(&c)
		return c
	}
	const ports = "-host-port 3005 -container-port 80 "
	const dockerd = "-proto tcp -host-ip 0.0.0.0 -host-port 3005 -container-ip 172.17.0.2 -container-port 80 "
	for _, test := range []struct {
		name, args  string
		environment map[string]string
		want        Config
	}{
		{"as dockerd passes it", dockerd, nil, base},
		{"double dashes", strings.ReplaceAll(dockerd, " -", " --"), nil, base},
		{"defaults", ports, nil, with(func(c *Config) { c.Backend = netip.MustParseAddrPort("0.0.0.0:80") })},
		{"udp over IPv6", ports + "-proto udp -host-ip :: -container-ip fd00::2", nil, with(func(c *Config) {
			c.Protocol = listener.UDP
			c.Frontend = netip.MustParseAddrPort("[::]:3005")
			c.Backend = netip.MustParseAddrPort("[fd00::2]:80")
		})},
		{"mapped address", ports + "-container-ip ::ffff:172.17.0.2", nil, base},
		{"listen descriptor", dockerd + "-use-listen-fd", nil, with(func(c *Config) { c.UseListenFD = true })},
		{"our flags", dockerd + "-engine fallback -splice never -dial-timeout 2s -udp-timeout 5s -max-flows 7 -udp-blocks off -local-bypass auto -log-format json -access-log on", nil, with(func(c *Config) {
			c.Policy = Never
			c.Engine, c.DialTimeout, c.UDPTimeout, c.MaxFlows = Fallback, 2*time.Second, 5*time.Second, 7
			c.UDPBlocks, c.LocalBypass, c.LogFormat, c.AccessLog = BlocksOff, BypassAuto, JSON, On
		})},
		{
			"our environment", dockerd,
			map[string]string{
				"PORTSPLICE_SPLICE": "always", "PORTSPLICE_ENGINE": "splice", "PORTSPLICE_DIAL_TIMEOUT": "3s",
				"PORTSPLICE_LOCAL_BYPASS": "require",
			},
			with(func(c *Config) {
				c.Policy, c.Engine, c.DialTimeout, c.LocalBypass = Always, Splice, 3*time.Second, BypassRequire
			}),
		},
		{
			"our environment for udp", dockerd + "-proto udp",
			map[string]string{"PORTSPLICE_UDP_TIMEOUT": "1m", "PORTSPLICE_MAX_FLOWS": "9", "PORTSPLICE_ENGINE": "",
				"PORTSPLICE_LOCAL_BYPASS": "require", // which is TCP's
				"PORTSPLICE_LOG_FORMAT":   "json", "PORTSPLICE_ACCESS_LOG": "on"},
			with(func(c *Config) {
				c.Protocol, c.UDPTimeout, c.MaxFlows, c.LogFormat = listener.UDP, time.Minute, 9, JSON
				c.AccessLog = On
			}),
		},
		{
			"a bad environment that tcp does not use", dockerd,
			map[string]string{"PORTSPLICE_UDP_TIMEOUT": "soon", "PORTSPLICE_MAX_FLOWS": "few"}, base,
		},
		{
			"a bad environment that the command line overrides", dockerd + "-engine fallback",
			map[string]string{"PORTSPLICE_ENGINE": "warp"}, with(func(c *Config) { c.Engine = Fallback }),
		},
		{
			"a misspelt variable", dockerd, map[string]string{"PORTSPLICE_DAIL_TIMEOUT": "3s", "PORTSPLICE_CPUPROFILE": "/"},
			with(func(c *Config) {
				c.Warnings = []string{
					"environment: PORTSPLICE_DAIL_TIMEOUT is not a variable of portsplice; PORTSPLICE_DIAL_TIMEOUT is",
				}
			}),
		},
		{
			"a variable like none", dockerd, map[string]string{"PORTSPLICE_COLOUR_OF_THE_SKY": "blue"},
			with(func(c *Config) {
				c.Warnings = []string{
					`environment: PORTSPLICE_COLOUR_OF_THE_SKY is not a variable of portsplice ("portsplice -h" names them)`,
				}
			}),
		},
		{"a socket with a zone of its own", dockerd + "-use-listen-fd -host-ip fe80::1", nil, with(func(c *Config) {
			c.UseListenFD, c.Frontend = true, netip.MustParseAddrPort("[fe80::1]:3005")
		})},
		{"link-local with zones", dockerd + "-host-ip fe80::1%eth0 -container-ip fe80::2%9", nil, with(func(c *Config) {
			c.Frontend, c.Backend = netip.MustParseAddrPort("[fe80::1%eth0]:3005"), netip.MustParseAddrPort("[fe80::2%9]:80")
		})},
		{
			"the command line wins", dockerd + "-engine fallback", map[string]string{"PORTSPLICE_ENGINE": "splice"},
			with(func(c *Config) { c.Engine = Fallback }),
		},
		{"headers", dockerd + "-proxy-protocol v2 -accept-proxy-protocol 192.0.2.1,2001:db8::/32,::ffff:192.0.2.2,", nil, with(func(c *Config) {
			c.ProxyProtocol = ProxyV2
			c.AcceptProxyProtocol = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32"),
				netip.MustParsePrefix("192.0.2.2/32")}
		})},
		{
			"headers by the environment", dockerd,
			map[string]string{"PORTSPLICE_PROXY_PROTOCOL": "v1", "PORTSPLICE_ACCEPT_PROXY_PROTOCOL": "192.0.2.0/24, 0.0.0.0/0"},
			with(func(c *Config) {
				c.ProxyProtocol = ProxyV1
				c.AcceptProxyProtocol = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("0.0.0.0/0")}
			}),
		},
		{
			"headers for all but one port", dockerd + "-proxy-protocol= -accept-proxy-protocol=",
			map[string]string{"PORTSPLICE_PROXY_PROTOCOL": "v1", "PORTSPLICE_ACCEPT_PROXY_PROTOCOL": "192.0.2.0/24"}, base,
		},
		{
			"headers of tcp, by the environment of udp", dockerd + "-proto udp",
			map[string]string{"PORTSPLICE_PROXY_PROTOCOL": "v3", "PORTSPLICE_ACCEPT_PROXY_PROTOCOL": "192.0.2.0/24"},
			with(func(c *Config) { c.Protocol = listener.UDP }),
		},
		{
			"a header and a bypass where that can be", dockerd + "-accept-proxy-protocol ::1 -local-bypass auto", nil,
			with(func(c *Config) {
				c.AcceptProxyProtocol = []netip.Prefix{netip.MustParsePrefix("::1/128")}
				c.Warnings = []string{
					"-local-bypass auto: not here: clients that go around the proxy have no part in -accept-proxy-protocol",
				}
			}),
		},
		{
			"transparent, and a bypass where that can be", dockerd + "-local-bypass auto", map[string]string{"PORTSPLICE_TRANSPARENT": "on"},
			with(func(c *Config) {
				c.Transparent = On
				c.Warnings = []string{"-local-bypass auto: not here: clients that go around the proxy have no part in -transparent"}
			}),
		},
		{
			"transparent for the clients of another family", dockerd + "-transparent on -proto udp -host-ip ::", nil,
			with(func(c *Config) {
				c.Transparent, c.Protocol, c.Frontend = On, listener.UDP, netip.MustParseAddrPort("[::]:3005")
				c.Warnings = []string{"-transparent: clients of [::]:3005, but for this host, are refused: their addresses are of another family than the container's"}
			}),
		},
		{"version", "-v", nil, Config{Version: true}},
		{"long version", "--version", nil, Config{Version: true}},
		{"version in a bad environment", "-v", map[string]string{"PORTSPLICE_ENGINE": "warp"}, Config{Version: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := parse(test.args, test.environment)
			if err != nil {
				t.Fatal(err)
			}
			if test.want.Version {
				got = Config{Version: got.Version}
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, test := range []struct {
		name, args  string
		environment map[string]string
		want        string
	}{
		{"unknown protocol", "-proto icmp -host-port 1 -container-port 1", nil, `-proto "icmp": unknown protocol (tcp, udp and sctp are known)`},
		{"no host port", "-container-port 80", nil, "-host-port: missing"},
		{"no container port", "-host-port 80", nil, "-container-port: missing"},
		{"port zero", "-host-port 0 -container-port 80", nil, "-host-port 0: not a port (1 to 65535)"},
		{"port too large", "-host-port 80 -container-port 65536", nil, "-container-port 65536: not a port (1 to 65535)"},
		{"port no number", "-host-port http -container-port 80", nil, `invalid value "http" for flag -host-port: parse error`},
		{"backend no address", "-host-port 1 -container-port 1 -container-ip web", nil, `-container-ip "web": not an IP address`},
		{"frontend no address", "-host-port 1 -container-port 1 -host-ip *", nil, `-host-ip "*": not an IP address`},
		{"unknown flag", "-hostport 1", nil, "flag provided but not defined: -hostport"},
		{"stray argument", "-host-port 1 -container-port 1 stray", nil, `unexpected argument "stray"`},
		{"unknown engine", "-engine warp", nil, `invalid value "warp" for flag -engine: one of ["splice" "fallback" "auto"] is known`},
		{"negative timeout", "-dial-timeout -1s", nil, `invalid value "-1s" for flag -dial-timeout: must be more than zero`},
		{"negative bound", "-max-flows -1", nil, `invalid value "-1" for flag -max-flows: must not be negative`},
		{"bound too large", "-max-flows 99999999999999999999", nil, `invalid value "99999999999999999999" for flag -max-flows: too large`},
		{"no version of a header", "-proxy-protocol v3", nil, `invalid value "v3" for flag -proxy-protocol: one of ["" "v1" "v2"] is known`},
		{"no prefix", "-accept-proxy-protocol 192.0.2.1,lb", nil, `invalid value "192.0.2.1,lb" for flag -accept-proxy-protocol: "lb": not an address or a prefix, such as 192.0.2.1 or 2001:db8::/32`},
		{"more than a prefix", "-accept-proxy-protocol 10.1.2.3/8", nil, `invalid value "10.1.2.3/8" for flag -accept-proxy-protocol: "10.1.2.3/8": not a prefix, which is 10.0.0.0/8, nor an address, which is 10.1.2.3`},
		{"a mapped prefix", "-accept-proxy-protocol ::ffff:10.0.0.0/104", nil, `invalid value "::ffff:10.0.0.0/104" for flag -accept-proxy-protocol: "::ffff:10.0.0.0/104": clients by IPv4 have IPv4 addresses: write the prefix as one of IPv4`},
		{"a header for udp", "-proto udp -host-port 1 -container-port 2 -proxy-protocol v1", nil, "-proxy-protocol: there is none for udp, only for tcp"},
		{"a header from sctp", "-proto sctp -host-port 1 -container-port 2 -accept-proxy-protocol ::1", nil, "-accept-proxy-protocol: there is none for sctp, only for tcp"},
		{"transparent and a bypass", "-host-port 1 -container-port 2 -transparent on -local-bypass require", nil, "-local-bypass require: clients that go around the proxy have no part in -transparent"},
		{"transparent and portable", "-host-port 1 -container-port 2 -transparent on -engine fallback", nil, "-transparent: not by -engine fallback"},
		{"transparent sctp", "-proto sctp -host-port 1 -container-port 2", map[string]string{"PORTSPLICE_TRANSPARENT": "on"},
			"-transparent: not for sctp, whose clients have several addresses at a time: switch it off for the port, in the file (transparent by PORTSPLICE_TRANSPARENT)"},
		{"a header and a bypass", "-host-port 1 -container-port 2 -proxy-protocol v1 -local-bypass require", nil, "-local-bypass require: clients that go around the proxy have no part in -proxy-protocol"},
		{"no unit", "-dial-timeout 10", nil, `invalid value "10" for flag -dial-timeout: the unit is missing: 10s, or ms, m, h`},
		{"no time", "-dial-timeout soon", nil, `invalid value "soon" for flag -dial-timeout: not a time, such as 500ms, 10s or 2m`},
		{
			"a variable without a unit", "-host-port 1 -container-port 2", map[string]string{"PORTSPLICE_DIAL_TIMEOUT": "10"},
			`environment: PORTSPLICE_DIAL_TIMEOUT="10": the unit is missing: 10s, or ms, m, h`,
		},
		{
			"a negative variable", "-proto udp -host-port 1 -container-port 2", map[string]string{"PORTSPLICE_UDP_TIMEOUT": "-5s"},
			`environment: PORTSPLICE_UDP_TIMEOUT="-5s": must be more than zero`,
		},
		{
			"a negative variable without a unit", "-proto udp -host-port 1 -container-port 2",
			map[string]string{"PORTSPLICE_UDP_TIMEOUT": "-5"}, `environment: PORTSPLICE_UDP_TIMEOUT="-5": must be more than zero`,
		},
		{
			"frontend without a zone", "-host-ip fe80::1 -host-port 1 -container-port 2", nil,
			"-host-ip fe80::1: a link-local address needs its zone, the interface: fe80::1%INTERFACE",
		},
		{
			"backend without a zone", "-use-listen-fd -container-ip fe80::2 -host-port 1 -container-port 2", nil,
			"-container-ip fe80::2: a link-local address needs its zone, the interface: fe80::2%INTERFACE",
		},
		{
			"environment", "-host-port 1 -container-port 2", map[string]string{"PORTSPLICE_ENGINE": "warp"},
			`environment: PORTSPLICE_ENGINE="warp": one of ["splice" "fallback" "auto"] is known`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := parse(test.args, test.environment)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	_, usage, err := parse("-h", nil)
	if !errors.Is(err, ErrHelp) || !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("got %v, want ErrHelp", err)
	}
	for _, want := range []string{"-proto", "-use-listen-fd", "-engine", "PORTSPLICE_DIAL_TIMEOUT"} {
		if !strings.Contains(usage, want) {
			t.Errorf("the usage does not mention %s:\n%s", want, usage)
		}
	}
}

// TestUsesAreInOrder: options are told in this order.
func TestUsesAreInOrder(t *testing.T) {
	for protocol, options := range uses {
		if !slices.IsSorted(options) {
			t.Errorf("%s: %q", protocol, options)
		}
	}
}

// TestLeadsBack_yuhaiin8: a port whose backend is the port itself is refused, and no other.
func TestLeadsBack_yuhaiin8(t *testing.T) {
	for _, test := range []struct {
		frontend, backend string
		refused           bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"198.18.0.1:80", "198.18.0.1:80", true},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "127.3.2.1:80", true},
		{"0.0.0.0:80", "0.0.0.0:80", true},
		{"127.0.0.1:80", "0.0.0.0:80", true},
		{"[::]:80", "[::1]:80", true},
		{"[::]:80", "[::]:80", true},
		{"127.0.0.1:80", "[::ffff:127.0.0.1]:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.2:80", "0.0.0.0:80", false},
		{"0.0.0.0:80", "172.17.0.2:80", false},
		{"[::]:80", "127.0.0.1:80", false},
		{"0.0.0.0:80", "[::1]:80", false},
	} {
		front, back := netip.MustParseAddrPort(test.frontend), netip.MustParseAddrPort(test.backend)
		for _, protocol := range []string{"tcp", "udp", "sctp"} {
			_, _, err := parse(fmt.Sprintf("-proto %s -host-ip %v -host-port %d -container-ip %v -container-port %d",
				protocol, front.Addr(), front.Port(), back.Addr(), back.Port()), nil)
			if refused := err != nil && strings.Contains(err.Error(), "is the port itself"); refused != test.refused {
				t.Errorf("%s %v to %v: %v; want it refused: %v", protocol, front, back, err, test.refused)
			}
		}
	}
}
