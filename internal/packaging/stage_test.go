//go:build linux

// Package packaging tests what is installed and released.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestStageWithoutShim: where there is no C compiler, a rootless dockerd before 28 starts the program itself.
func TestStageWithoutShim(t *testing.T) {
	for _, want := range []string{"portsplice", "portsplice-shim"} {
		programs, tree := t.TempDir(), t.TempDir()
		for _, name := range []string{"portsplice", "portsplice-bypass", "portsplicectl", want} {
			rig.Must(t, os.WriteFile(filepath.Join(programs, name), nil, 0o755))
		}
		run(t, "", "./stage", programs, t.TempDir(), tree, "/usr")
		found, err := filepath.EvalSymlinks(filepath.Join(tree, "usr/libexec/docker/rootless/docker-proxy"))
		if err != nil || filepath.Base(found) != want {
			t.Errorf("with %s the link leads to %s, %v", want, found, err)
		}
	}
}

// run runs a command, and gives what it prints.
func run(t *testing.T, dir string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}
