package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// optionsFile is a file of options that changes as people change theirs: by another one of its name.
type optionsFile struct{ path string }

func newOptionsFile(t *testing.T, text string) optionsFile {
	t.Helper()
	f := optionsFile{filepath.Join(t.TempDir(), "portsplice.json")}
	f.write(t, text)
	return f
}

func (f optionsFile) write(t *testing.T, text string) {
	t.Helper()
	must(t, os.WriteFile(f.path+".new", []byte(text), 0o600))
	must(t, os.Rename(f.path+".new", f.path))
}

// env is what tells a proxy of it.
func (f optionsFile) env() []string { return []string{"PORTSPLICE_CONFIG=" + f.path} }

// TestFileRefusesPort: dockerd is told file, line and reason by a port for which the file is wrong, with a worker and
// without. Other ports are served, and those that run are not touched.
func TestFileRefusesPort(t *testing.T) {
	l := newLab(t)
	for _, how := range []struct {
		name string
		of   func(run) run
	}{
		{"program", func(r run) run { return r }},
		{"shim", l.run},
	} {
		t.Run(how.name, func(t *testing.T) {
			good, bad := freePort(t, "tcp", ours()), freePort(t, "tcp", ours())
			backend := echo(t, "tcp", ours())
			f := newOptionsFile(t, fmt.Sprintf("{ \"dial-timeout\": \"5s\", \"ports\": {\n\"%d/tcp\": {\n\"splice\": \"warp\" } } }", bad.Port()))
			served := how.of(run{args: arguments("tcp", good, backend), env: f.env()}).serve(t)
			conn := dial(t, "tcp", good)
			exchange(t, conn, "hello")
			refused := how.of(run{args: arguments("tcp", bad, backend), env: f.env()}).start(t)
			want := fmt.Sprintf("1\n%s:3: \"%d/tcp\": \"splice\": \"warp\": one of [\"adaptive\" \"always\" \"never\"] is known\n", f.path, bad.Port())
			if refused.status != want {
				t.Errorf("the status is %q, want %q", refused.status, want)
			}
			if code := refused.ends(t); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			f.write(t, "{\n\"dial-timeot\": \"5s\" }")
			refused = how.of(run{args: arguments("tcp", bad, backend), env: f.env()}).start(t)
			if want := f.path + `:2: "dial-timeot": no such option; "dial-timeout" is one`; !strings.HasPrefix(refused.status, "1\n"+want) {
				t.Errorf("the status is %q, want %q", refused.status, want)
			}
			exchange(t, conn, "hello")
			exchange(t, dial(t, "tcp", good), "hello")
			if served.alone(t) != (how.name == "program") {
				t.Error("the port is served by another process than it was")
			}
			f.write(t, "{}") // each port that starts reads the file
			exchange(t, dial(t, "tcp", good), "hello")
			how.of(run{args: arguments("tcp", bad, backend), env: f.env()}).serve(t)
			exchange(t, dial(t, "tcp", bad), "hello")
		})
	}
}
