package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/listener"
)

// write writes a file of options.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portsplice.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLayers has an option in every combination of layers: the first of them wins, and is told as the source.
func TestLayers(t *testing.T) {
	const flag, variable, section, top = 1, 2, 4, 8
	for in := range 16 {
		args := []string{"-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "443", "-container-port", "80"}
		var environment, sections []string
		var file string
		if in&flag != 0 {
			args = append(args, "-dial-timeout", "1s")
		}
		if in&section != 0 {
			sections = append(sections, `"dial-timeout": "3s"`)
		}
		if in&top != 0 {
			file = `"dial-timeout": "4s",`
		}
		path := write(t, fmt.Sprintf("{ %s\n\"ports\": {\n\"127.0.0.1:443/tcp\": {%s} } }", file, strings.Join(sections, "")))
		environment = append(environment, "PORTSPLICE_CONFIG="+path)
		if in&variable != 0 {
			environment = append(environment, "PORTSPLICE_DIAL_TIMEOUT=2s")
		} else {
			environment = append(environment, "PORTSPLICE_DIAL_TIMEOUT=") // which is none
		}
		want := Setting{"dial-timeout", "10s", "default"}
		switch {
		case in&flag != 0:
			want.Value, want.Source = "1s", "-dial-timeout"
		case in&variable != 0:
			want.Value, want.Source = "2s", "PORTSPLICE_DIAL_TIMEOUT"
		case in&section != 0:
			want.Value, want.Source = "3s", path+":3"
		case in&top != 0:
			want.Value, want.Source = "4s", path+":1"
		}
		c, err := Parse(args, environment, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.DialTimeout.String() != want.Value {
			t.Errorf("layers %04b: %v, want %s", in, c.DialTimeout, want.Value)
		}
		_, settings, err := Explain(args, environment)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(settings, want) {
			t.Errorf("layers %04b: %v, want %v", in, settings, want)
		}
	}
}

// TestEveryOptionInTheFile: each option is a key, in sections of the protocols that use it, and an empty string is its
// default.
func TestEveryOptionInTheFile(t *testing.T) {
	for protocol, options := range uses {
		for _, option := range options {
			f := new(Config).defaults().Lookup(option)
			if f == nil {
				t.Fatalf("%s uses %s, which is no option", protocol, option)
			}
			path := write(t, fmt.Sprintf(`{ %q: %q, "ports": { "1/%s": { %[1]q: "" } } }`, option, f.DefValue, protocol))
			if errs := Check(path); errs != nil {
				t.Error(errs)
			}
			settings, err := ExplainPort(protocol, netip.MustParseAddrPort("[::1]:1"), []string{"PORTSPLICE_CONFIG=" + path})
			if err != nil {
				t.Error(err)
			}
			if want := (Setting{option, f.DefValue, path + ":1"}); !slices.Contains(settings, want) {
				t.Errorf("%s: got %v, want %v", protocol, settings, want)
			}
			if len(settings) != len(options) {
				t.Errorf("%s: got %d options, want %d", protocol, len(settings), len(options))
			}
		}
	}
}

// TestSections: a port has what its sections say, by address and range.
func TestSections(t *testing.T) {
	path := write(t, `{
	"udp-timeout": "1s",
	"max-flows": 1,
	"udp-blocks": "",
	"ports": {
		"53/udp": { "udp-timeout": "2s", "max-flows": 2 },
		"127.0.0.1:53/udp": { "max-flows": "2", "udp-blocks": "off" },
		"[::]:5000-5099/udp": { "udp-timeout": "3s" },
		"53/tcp": { "dial-timeout": "3s" },
		"[::ffff:127.0.0.2]:7-7/udp": { "udp-timeout": "4s" }
	}
}`)
	if errs := Check(path); errs != nil {
		t.Fatal(errs)
	}
	for _, test := range []struct{ frontend, want string }{
		{"0.0.0.0:52", "1s 1 auto"},
		{"0.0.0.0:53", "2s 2 auto"},
		{"[::]:53", "2s 2 auto"},
		{"127.0.0.1:53", "2s 2 off"},
		{"127.0.0.2:53", "2s 2 auto"},
		{"[::]:4999", "1s 1 auto"},
		{"[::]:5000", "3s 1 auto"},
		{"[::]:5099", "3s 1 auto"},
		{"[::]:5100", "1s 1 auto"},
		{"[::1]:5000", "1s 1 auto"},
		{"0.0.0.0:5000", "1s 1 auto"},
		{"127.0.0.2:7", "4s 1 auto"},
	} {
		front := netip.MustParseAddrPort(test.frontend)
		c, _, err := parse(fmt.Sprintf("-proto udp -host-ip %v -host-port %d -container-port 1", front.Addr(), front.Port()),
			map[string]string{"PORTSPLICE_CONFIG": path})
		if err != nil {
			t.Error(err)
		}
		if got := fmt.Sprintf("%v %v %v", c.UDPTimeout, c.MaxFlows, c.UDPBlocks); got != test.want {
			t.Errorf("%s: got %s, want %s", test.frontend, got, test.want)
		}
	}
}

// TestFileErrors: each is told with its line, by Check and to the ports that it is of.
func TestFileErrors(t *testing.T) {
	const mine, every = "127.0.0.1:443", "198.18.0.1:80" // the second is in no section
	for _, test := range []struct {
		name, file string
		want       []string // FILE left out
		every      int      // how many of them are of ports in no section
	}{
		{"empty", "", []string{":1: unexpected end of JSON input"}, 1},
		{"cut", "{\n\t\"engine\": \"auto\",\n", []string{":2: unexpected end of JSON input"}, 1},
		{"no comma", "{\n\"engine\": \"auto\"\n\"splice\": \"never\" }", []string{":3: invalid character '\"' after object key:value pair"}, 1},
		{"a comma at the end", "{\n\"engine\": \"auto\",\n}", []string{":3: invalid character '}' looking for beginning of object key string"}, 1},
		{"more behind it", "{}\n{}", []string{":2: invalid character '{' after top-level value"}, 1},
		{"a list", "\n[]", []string{`:2: must be an object: { "key": value, ... }`}, 1},
		{"unknown key", "{\n\"dial-timeot\": \"1s\" }", []string{`:2: "dial-timeot": no such option; "dial-timeout" is one`}, 1},
		{"key on a line of its own", "{\n\"engin\"\n:\n1 }", []string{`:2: "engin": no such option; "engine" is one`}, 1},
		{"unlike any key", "{ \"colour\": 1 }", []string{`:1: "colour": no such option ("portsplice -h" names them)`}, 1},
		{"sections misspelt", "{ \"port\": {} }", []string{`:1: "port": no such option; "ports" is one`}, 1},
		{"bad value", "{\n\n\"dial-timeout\": \"10\" }", []string{`:3: "dial-timeout": "10": the unit is missing: 10s, or ms, m, h`}, 1},
		{"number", "{ \"dial-timeout\": 10 }", []string{`:1: "dial-timeout": 10: the unit is missing: 10s, or ms, m, h`}, 1},
		{"truth", "{ \"engine\": true }", []string{`:1: "engine": true: one of ["splice" "fallback" "auto"] is known`}, 1},
		{"null", "{ \"engine\": null }", []string{`:1: "engine": null: must be a string, a number, true, false or a list of strings`}, 1},
		{"object", "{ \"engine\": {} }", []string{`:1: "engine": {}: must be a string, a number, true, false or a list of strings`}, 1},
		{"list of others", "{ \"engine\": [1] }", []string{`:1: "engine": [1]: the elements of a list must be strings`}, 1},
		{"list", "{ \"engine\": [\"auto\", \"splice\"] }", []string{`:1: "engine": ["auto", "splice"]: one of ["splice" "fallback" "auto"] is known`}, 1},
		{"twice", "{ \"engine\": \"auto\",\n \"engine\": \"splice\" }", []string{`:2: "engine": it is in line 1, too`}, 1},
		{"ports no object", "{\n\"ports\": [] }", []string{`:2: "ports": must be an object: { "key": value, ... }`}, 1},
		{"no protocol", "{\n\"ports\": {\n\"443\": {} } }", []string{`:3: "443": the protocol is missing, as in "443/tcp"`}, 1},
		{"a section for no port", "{ \"ports\": {\n\"443/tpc\":\n{ \"engine\": 1 } } }", []string{`:2: "443/tpc": unknown protocol "tpc" (tcp, udp and sctp are known)`}, 1},
		{"section no object", "{ \"ports\": {\n\"443/tcp\": null } }", []string{`:2: "443/tcp": must be an object: { "key": value, ... }`}, 0},
		{"section twice", "{ \"ports\": { \"443/tcp\": {},\n\"443/tcp\": {} } }", []string{`:2: "443/tcp": it is in line 1, too`}, 1},
		{"in a section", "{ \"ports\": {\n\"443/tcp\": {\n\"engin\": \"auto\",\n\"splice\": \"warp\",\n\"udp-timeout\": \"1s\",\n\"splice\": \"never\",\n\"ports\": {} } } }", []string{
			`:3: "443/tcp": "engin": no such option; "engine" is one`,
			`:4: "443/tcp": "splice": "warp": one of ["adaptive" "always" "never"] is known`,
			`:5: "443/tcp": "udp-timeout": tcp has no use for it`,
			`:6: "443/tcp": "splice": it is in line 4, too`,
			`:7: "443/tcp": "ports": no such option ("portsplice -h" names them)`,
		}, 0},
		{"both", "{ \"ports\": { \"127.0.0.1:1-1000/tcp\": {\n\"engine\": \"warp\" } },\n\"engine\": \"warp\" }", []string{
			`:2: "127.0.0.1:1-1000/tcp": "engine": "warp": one of ["splice" "fallback" "auto"] is known`,
			`:3: "engine": "warp": one of ["splice" "fallback" "auto"] is known`,
		}, 1},
		{"of other ports", "{ \"ports\": { \"444/tcp\": {\n\"engine\": \"warp\" } } }", nil, 0},
		{"overlap", "{ \"ports\": {\n\"443/tcp\": { \"dial-timeout\": \"1s\", \"engine\": \"auto\" },\n\"127.0.0.1:443/tcp\": {\n\"engine\": \"\", \"dial-timeout\": \"2s\" } } }", []string{
			`:4: "127.0.0.1:443/tcp": "dial-timeout" is "2s" here and "1s" in line 2, for "443/tcp": both are for the same ports`,
		}, 0},
		{"overlap of the same values", "{ \"ports\": { \"443/tcp\": { \"dial-timeout\": \"1s\" }, \"1-1000/tcp\": { \"dial-timeout\": \"1000ms\" } } }", nil, 0},
		{"three overlap", "{ \"ports\": {\n\"443/tcp\": { \"engine\": \"auto\" },\n\"440-450/tcp\": { \"engine\": \"splice\" },\n\"443-443/tcp\": { \"engine\": \"fallback\" } } }", []string{
			`:3: "440-450/tcp": "engine" is "splice" here and "auto" in line 2, for "443/tcp": both are for the same ports`,
			`:4: "443-443/tcp": "engine" is "fallback" here and "auto" in line 2, for "443/tcp": both are for the same ports`,
			`:4: "443-443/tcp": "engine" is "fallback" here and "splice" in line 3, for "440-450/tcp": both are for the same ports`,
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.file)
			of := func(frontend string) []string {
				_, err := ExplainPort(listener.TCP, netip.MustParseAddrPort(frontend), []string{"PORTSPLICE_CONFIG=" + path})
				if err == nil {
					return nil
				}
				if wrong := (*FileError)(nil); !errors.As(err, &wrong) || wrong.Path != path {
					t.Errorf("%v is no error of the file", err)
				}
				return strings.Split(strings.ReplaceAll(err.Error(), path, ""), "\n")
			}
			if diff := cmp.Diff(test.want, of(mine)); diff != "" {
				t.Errorf("the port in sections, -want +got:\n%s", diff)
			}
			if got := of(every); len(got) != test.every {
				t.Errorf("a port in no section: got %q, want %d errors", got, test.every)
			}
			var checked []string
			for _, err := range Check(path) {
				checked = append(checked, strings.TrimPrefix(err.Error(), path))
			}
			if test.name == "of other ports" {
				if len(checked) != 1 {
					t.Errorf("Check gives %q, want one error", checked)
				}
			} else if diff := cmp.Diff(test.want, checked); diff != "" {
				t.Errorf("Check, -want +got:\n%s", diff)
			}
		})
	}
}

// TestOverlapOfOtherPorts: ports that are in one of two sections that disagree are served.
func TestOverlapOfOtherPorts(t *testing.T) {
	path := write(t, `{ "ports": { "1-10/tcp": { "engine": "auto" }, "10-20/tcp": { "engine": "splice", "dial-timeout": "2s" },
		"127.0.0.1:30/tcp": { "engine": "auto" }, "127.0.0.2:30/tcp": { "engine": "splice" }, "10/sctp": { "dial-timeout": "1s" } } }`)
	if errs := Check(path); len(errs) != 1 {
		t.Errorf("Check gives %v, want one error", errs)
	}
	for port, refused := range map[string]bool{"0.0.0.0:9": false, "0.0.0.0:10": true, "[::]:11": false, "127.0.0.1:30": false} {
		_, err := ExplainPort(listener.TCP, netip.MustParseAddrPort(port), []string{"PORTSPLICE_CONFIG=" + path})
		if (err != nil) != refused {
			t.Errorf("%s: %v, want it refused: %v", port, err, refused)
		}
	}
}

// TestFileCannotBeRead: one that is not there is fine, and any other reason is told.
func TestFileCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, largestFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "",
		dir:                        dir + ": not a regular file",
		large:                      large + ": larger than 1048576 bytes",
		"portsplice.json":          `environment: PORTSPLICE_CONFIG="portsplice.json": not an absolute path`,
	} {
		_, _, err := parse("-host-port 1 -container-port 2", map[string]string{"PORTSPLICE_CONFIG": path})
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if errs := Check(large); len(errs) != 1 {
		t.Errorf("Check gives %v, want one error", errs)
	}
}

func TestParsePorts(t *testing.T) {
	for name, want := range map[string]string{
		"443/tcp":              "{tcp invalid IP 443 443}",
		"127.0.0.1:53/udp":     "{udp 127.0.0.1 53 53}",
		"[::]:5000-5099/sctp":  "{sctp :: 5000 5099}",
		"[fe80::1%eth0]:1/tcp": "{tcp fe80::1%eth0 1 1}",
		"443":                  `the protocol is missing, as in "443/tcp"`,
		"/tcp":                 `"" is not a port (1 to 65535)`,
		"0/tcp":                `"0" is not a port (1 to 65535)`,
		"65536/tcp":            `"65536" is not a port (1 to 65535)`,
		"-1/tcp":               `"" is not a port (1 to 65535)`,
		"1-/tcp":               `"" is not a port (1 to 65535)`,
		"2-1/tcp":              "the range 2-1 ends before it begins",
		"1/TCP":                `unknown protocol "TCP" (tcp, udp and sctp are known)`,
		"*:1/tcp":              `"*" is not an IP address`,
		":1/tcp":               `"" is not an IP address`,
		"::1:1/tcp":            "an IPv6 address is in brackets: [::1]",
		"[::1:1/tcp":           `"[::1" is not an IP address`,
		"[::]/tcp":             "the port is missing, as in [::]:443",
		"127.0.0.1/tcp":        "the port is missing, as in 127.0.0.1:443",
		"[127.0.0.1]:1/tcp":    `"[127.0.0.1]" is not an IP address`,
	} {
		p, err := ParsePorts(name)
		got := fmt.Sprint(p)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// TestAdopt: what can change of a port's options does, and the rest is told of.
func TestAdopt(t *testing.T) {
	parsed := func(args string) Config {
		c, _, err := parse("-host-port 1 -container-port 2 "+args, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := parsed("-udp-timeout 1s")
	got, changes := before.Adopt(parsed("-dial-timeout 1s -splice never -engine fallback -udp-timeout 2s"))
	if diff := cmp.Diff([]Change{
		{Option: "dial-timeout", From: "10s", To: "1s", Live: true}, {Option: "engine", From: "auto", To: "fallback"},
		{Option: "splice", From: "adaptive", To: "never", Live: true},
	}, changes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if want := parsed("-dial-timeout 1s -splice never -udp-timeout 1s"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if fmt.Sprint(before) != fmt.Sprint(parsed("-udp-timeout 1s")) {
		t.Errorf("it has changed what it was given: %v", before)
	}
	got, changes = parsed("-transparent on").Adopt(parsed("-local-bypass require")) // -transparent stays, and has no bypass beside it
	if diff := cmp.Diff([]Change{
		{Option: "local-bypass", From: "off", To: "require", Reason: "clients that go around the proxy have no part in -transparent"},
		{Option: "transparent", From: "on", To: "off"},
	}, changes); diff != "" || got.LocalBypass != BypassOff {
		t.Errorf("the bypass is %s, -want +got:\n%s", got.LocalBypass, diff)
	}
}

// FuzzFile: whatever is in the file, it is taken or refused with a line that it has.
func FuzzFile(f *testing.F) {
	f.Add(`{ "dial-timeout": "10s", "ports": { "443/tcp": { "engine": "" }, "[::]:1-2/tcp": { "engine": "auto" } } }`)
	f.Add("{\n\"ports\":{\"1/tcp\":[{}],\"1/tcp\":{}},\"\":1e9,\"ports\":null}")
	f.Fuzz(func(t *testing.T, text string) {
		file := &file{path: "x", options: new(Config).defaults()}
		file.parse([]byte(text))
		_, _ = file.of(listener.TCP, netip.MustParseAddrPort("[::]:1")) // which must not panic
		for _, wrong := range append(file.faults, overlaps(file.sections)...) {
			if wrong.line < 1 || wrong.line > 1+strings.Count(text, "\n") {
				t.Errorf("line %d of %q: %v", wrong.line, text, wrong.err)
			}
		}
	})
}

// TestTogether: options that do not go together are refused with where each comes from, and found by Check where it is the
// file alone.
func TestTogether(t *testing.T) {
	const reason = "-local-bypass require: clients that go around the proxy have no part in -proxy-protocol"
	path := write(t, "{ \"local-bypass\": \"require\", \"ports\": {\n\"443/tcp\": {\n\"proxy-protocol\": \"v2\" },\n\"444/tcp\": {},\n\"443/udp\": {} } }")
	inFile := fmt.Sprintf("%s (local-bypass by %s:1, proxy-protocol by %[2]s:3)", reason, path)
	if errs := Check(path); len(errs) != 1 || errs[0].Error() != path+":2: "+inFile {
		t.Errorf("Check gives %v, want line 2 and %s", errs, inFile)
	}
	for _, test := range []struct{ args, variable, want string }{
		{"-host-port 443", "", inFile},
		{"-host-port 444", "v2", fmt.Sprintf("%s (local-bypass by %s:1, proxy-protocol by PORTSPLICE_PROXY_PROTOCOL)", reason, path)},
		{"-host-port 444 -proxy-protocol v2", "", fmt.Sprintf("%s (local-bypass by %s:1)", reason, path)},
		{"-host-port 444", "", ""},
	} {
		_, _, err := parse(test.args+" -container-port 1", map[string]string{"PORTSPLICE_CONFIG": path, "PORTSPLICE_PROXY_PROTOCOL": test.variable})
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%s: %v, want %q", test.args, err, test.want)
		}
	}
	top := write(t, `{ "local-bypass": "require", "proxy-protocol": "v2", "ports": { "443/tcp": {} } }`)
	if errs := Check(top); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), top+": "+reason) {
		t.Errorf("Check gives %v, want one error of the top level", errs)
	}
	_, err := ExplainPort(listener.TCP, netip.MustParseAddrPort("[::]:1"), []string{"PORTSPLICE_CONFIG=" + top})
	if err == nil || !strings.HasPrefix(err.Error(), reason) {
		t.Errorf("ExplainPort: %v", err)
	}
}
