package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// run runs portsplicectl, and gives what it prints.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// TestInstall is what a packager types: shown first, then done, then taken back.
func TestInstall(t *testing.T) {
	root := t.TempDir()
	libexec := filepath.Join(root, "usr/libexec/docker")
	link := filepath.Join(root, "usr/local/libexec/docker/docker-proxy")
	if err := os.MkdirAll(libexec, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"portsplice-shim", "portsplice"} {
		if err := os.WriteFile(filepath.Join(libexec, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		args   []string
		says   string
		linked bool
	}{
		{[]string{"uninstall"}, "nothing to do", false},
		{[]string{"install", "--docker", "28.0.0", "--dry-run"}, "would link ", false},
		{[]string{"install", "--docker", "28.0.0"}, "systemctl restart docker", true},
		{[]string{"install", "--docker", "28.0.0"}, "nothing to do", true},
		{[]string{"uninstall", "--dry-run"}, "would remove the link ", true},
		{[]string{"uninstall"}, "systemctl restart docker", false},
	} {
		out, err := run(t, append(step.args, "--root", root)...)
		if err != nil || !strings.Contains(out, step.says) {
			t.Errorf("%q: %v, says %q; want %q", step.args, err, out, step.says)
		}
		if target, _ := os.Readlink(link); (target == "/usr/libexec/docker/portsplice-shim") != step.linked {
			t.Errorf("%q: the link leads to %q; want it there: %v", step.args, target, step.linked)
		}
	}
	if out, err := run(t, "install", "--root", root); err == nil || !strings.Contains(out, "--docker") {
		t.Errorf("without a version: %v, says %q", err, out)
	}
}
