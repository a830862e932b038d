package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/internal/listener"
)

//go:generate go test -run TestPage . -update

var update = flag.Bool("update", false, "write docs/options.md anew")

// TestPage: the table in docs/options.md is made of the flags. "make docs" makes it anew.
func TestPage(t *testing.T) {
	const begin, end = "<!-- options: written by make docs -->\n\n", "\n<!-- end -->"
	path := filepath.Join("..", "..", "docs", "options.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(b), begin)
	now, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no table between %q and %q", path, begin, end)
	}
	want := table()
	switch {
	case *update:
		err = os.WriteFile(path, []byte(before+begin+want+end+after), 0o644)
	case now != want:
		err = fmt.Errorf("%s is stale: make docs", path)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestExamplesOfHeaders: the files in docs/client-addresses.md are right, and are of PROXY headers.
func TestExamplesOfHeaders(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "client-addresses.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile(`\{ "ports": .*proxy-protocol.* \} \}`).FindAllString(string(b), -1)
	if len(examples) != 3 {
		t.Errorf("the examples are %q, want 3", examples)
	}
	for _, example := range examples {
		if errs := Check(write(t, example)); errs != nil {
			t.Errorf("%s: %v", example, errs)
		}
	}
}

// table has a line for each option.
func table() string {
	var b strings.Builder
	b.WriteString("| flag, and key of the file | variable | default | of | on reload | meaning |\n|---|---|---|---|---|---|\n")
	new(Config).defaults().VisitAll(func(f *flag.Flag) {
		var of []string
		for _, protocol := range []listener.Protocol{listener.TCP, listener.UDP, listener.SCTP} {
			if slices.Contains(uses[protocol], f.Name) {
				of = append(of, strings.ToUpper(string(protocol)))
			}
		}
		reload := "stays"
		if slices.Contains(live, f.Name) {
			reload = "changes"
		}
		value := "none"
		if f.DefValue != "" {
			value = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", f.Name, variable(f.Name), value, strings.Join(of, ", "), reload,
			strings.ReplaceAll(f.Usage, "|", `\|`))
	})
	return b.String()
}
