package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/worker"
)

// execute runs a command, and gives what it has printed on standard output and standard error.
func execute(c *cobra.Command, args ...string) (out, err string, failed error) {
	var stdout, stderr strings.Builder
	c.SetArgs(args)
	c.SetOut(&stdout)
	c.SetErr(&stderr)
	c.SilenceUsage = true
	failed = c.Execute()
	return stdout.String(), stderr.String(), failed
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portsplice.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCheck: all that is wrong is told, a line each, and the command fails.
func TestCheck(t *testing.T) {
	good := write(t, `{ "dial-timeout": "5s" }`)
	bad := write(t, "{\n\"dial-timeot\": \"5s\",\n\"ports\": { \"443/tcp\": {\n\"splice\": \"warp\" } } }")
	none := filepath.Join(t.TempDir(), "none")
	complaint := bad + ":2: \"dial-timeot\": no such option; \"dial-timeout\" is one\n" +
		bad + ":4: \"443/tcp\": \"splice\": \"warp\": one of [\"adaptive\" \"always\" \"never\"] is known\n"
	for _, test := range []struct {
		name, variable   string
		args             []string
		out, err, failed string // of failed, how it ends
	}{
		{"good", none, []string{good}, good + ": nothing is wrong\n", "", ""},
		{"good by the variable", good, nil, good + ": nothing is wrong\n", "", ""},
		{"bad", none, []string{bad}, "", complaint, complaint},
		{"bad by the variable", bad, nil, "", complaint, complaint},
		{"not there", none, nil, none + " is not there, which is fine\n", "", ""},
		{"not there, and named", good, []string{none}, "", "Error: stat " + none + ": no such file or directory\n", "no such file or directory\n"},
		{"a variable that is none", "portsplice.json", nil, "",
			"Error: environment: PORTSPLICE_CONFIG=\"portsplice.json\": not an absolute path\n", "not an absolute path\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PORTSPLICE_CONFIG", test.variable)
			out, err, failed := execute(check(), test.args...)
			if out != test.out || err != test.err {
				t.Errorf("it printed %q and %q, want %q and %q", out, err, test.out, test.err)
			}
			if (failed != nil) != (test.failed != "") || failed != nil && !strings.HasSuffix(failed.Error()+"\n", test.failed) {
				t.Errorf("%v, want %q", failed, test.failed)
			}
		})
	}
}

// TestConfigOfNoPort: of a port that is not served the file and the environment tell. (What a worker tells is tested
// beside the program.)
func TestConfigOfNoPort(t *testing.T) {
	path := write(t, `{ "max-flows": 7,
"ports": { "127.255.255.254:1-9/udp": { "udp-timeout": "5s" } } }`)
	t.Setenv("PORTSPLICE_CONFIG", path)
	t.Setenv("PORTSPLICE_UDP_BLOCKS", "off")
	out, note, _ := execute(showOptions(), "127.255.255.254:1-9/udp") // other workers of this machine may be older
	const want = `127.255.255.254:1/udp
OPTION       VALUE  FROM
engine       auto   default
max-flows    7      FILE:1
udp-blocks   off    PORTSPLICE_UDP_BLOCKS
udp-timeout  5s     FILE:2
`
	for _, line := range strings.SplitAfter(want, "\n") { // an option more is no failure
		if !strings.Contains(strings.ReplaceAll(out, path, "FILE"), line) {
			t.Errorf("printed %s without %s", out, line)
		}
	}
	if want := "no worker of yours serves 127.255.255.254:1-9/udp: this is by the file and this command's environment\n"; !strings.Contains(note, want) {
		t.Errorf("the note is %q, want %q", note, want)
	}
	out, _, _ = execute(showOptions(), "127.255.255.254:1-9/udp", "--json")
	var ports []worker.PortOptions
	if err := json.Unmarshal([]byte(out), &ports); err != nil {
		t.Fatal(err)
	}
	for _, o := range ports[0].Options {
		if o.Option == "udp-timeout" && (o.Value != "5s" || o.Source != path+":2" || o.InForce != nil) {
			t.Errorf("got %v", o)
		}
	}
	for _, bad := range []string{"443", "443/tpc", "x:443/tcp"} {
		if _, said, failed := execute(showOptions(), bad); failed == nil || !strings.HasPrefix(said, "Error: "+bad+": ") {
			t.Errorf("%s: %v, %q", bad, failed, said)
		}
	}
	t.Setenv("PORTSPLICE_CONFIG", write(t, "{"))
	if out, said, failed := execute(showOptions(), "1/tcp", "--json"); failed == nil || out != "[]\n" || !strings.Contains(said, ":1: unexpected end of JSON input") {
		t.Errorf("with a bad file: %v, %q, %q", failed, out, said)
	}
}
