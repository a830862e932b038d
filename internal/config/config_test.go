package config

import (
	"errors"
	"flag"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portsplice/portsplice/internal/listener"
)

func parse(args string, environment map[string]string) (Config, string, error) {
	var usage strings.Builder
	c, err := Parse(strings.Fields(args), func(name string) string { return environment[name] }, &usage)
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
		{"our flags", dockerd + "-engine fallback -splice never -dial-timeout 2s -udp-timeout 5s -max-flows 7 -udp-blocks off", nil, with(func(c *Config) {
			c.Policy = Never
			c.Engine, c.DialTimeout, c.UDPTimeout, c.MaxFlows = Fallback, 2*time.Second, 5*time.Second, 7
			c.UDPBlocks = BlocksOff
		})},
		{
			"our environment", dockerd,
			map[string]string{
				"PORTSPLICE_SPLICE": "always", "PORTSPLICE_ENGINE": "splice", "PORTSPLICE_DIAL_TIMEOUT": "3s", "PORTSPLICE_UDP_TIMEOUT": "1m",
				"PORTSPLICE_MAX_FLOWS": "9",
			},
			with(func(c *Config) {
				c.Policy = Always
				c.Engine, c.DialTimeout, c.UDPTimeout, c.MaxFlows = Splice, 3*time.Second, time.Minute, 9
			}),
		},
		{
			"the command line wins", dockerd + "-engine fallback", map[string]string{"PORTSPLICE_ENGINE": "splice"},
			with(func(c *Config) { c.Engine = Fallback }),
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
			if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
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
		{"negative timeout", "-host-port 1 -container-port 1 -dial-timeout -1s", nil, "-dial-timeout -1s: must be more than zero"},
		{"negative bound", "-host-port 1 -container-port 1 -max-flows -1", nil, "-max-flows -1: must not be negative"},
		{
			"environment", "-host-port 1 -container-port 1", map[string]string{"PORTSPLICE_ENGINE": "warp"},
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
