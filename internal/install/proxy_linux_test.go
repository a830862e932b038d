package install

import (
	"os"
	"path/filepath"
	"testing"
)

// TestProxy follows dockerd to what it starts. (The directories that are the machine's own are end-to-end tests'.)
func TestProxy(t *testing.T) {
	dir := t.TempDir()
	config, bin := filepath.Join(dir, "daemon.json"), filepath.Join(dir, "bin")
	put(t, filepath.Join(bin, "docker-proxy"), "", 0o755)
	variable := func(name string) string { return map[string]string{"PATH": "/nowhere:" + bin}[name] }
	for _, test := range []struct {
		name, file string
		args       []string
		want       Choice
	}{
		{"an old one looks in PATH", "{}", nil, Choice{Path: bin + "/docker-proxy", From: "its PATH"}},
		{"its file", `{"userland-proxy-path": "/x/portsplice"}`, nil, Choice{Path: "/x/portsplice", From: config}},
		{"its command line", "{}", []string{"--userland-proxy-path=/y"}, Choice{Path: "/y", From: "its command line"}},
		{"none, by its file", `{"userland-proxy": false}`, nil, Choice{Off: true, Path: bin + "/docker-proxy", From: "its PATH"}},
		{"none, by its command line", "{}", []string{"--userland-proxy=false"}, Choice{Off: true, Path: bin + "/docker-proxy", From: "its PATH"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			put(t, config, test.file, 0o644)
			d := Daemon{Args: append(test.args, "--config-file="+config)}
			got, err := d.Proxy("20.10.24", variable)
			if err != nil || got.Off != test.want.Off || got.Path != test.want.Path || got.From != test.want.From || got.Files[0] != config {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
	put(t, config, "{", 0o644)
	if _, err := (Daemon{Args: []string{"--config-file=" + config}}).Proxy("20.10.24", variable); err == nil {
		t.Error("a file that cannot be read is no fault")
	}
	must(t, os.Remove(filepath.Join(bin, "docker-proxy")))
	if got, err := (Daemon{Args: []string{"--config-file=/nowhere"}}).Proxy("20.10.24", variable); err != nil || got.Path != "" {
		t.Errorf("where there is none: %+v, %v", got, err)
	}
}

func TestSocket(t *testing.T) {
	variable := func(name string) string { return map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000"}[name] }
	for _, test := range []struct {
		d    Daemon
		want string
	}{
		{Daemon{Args: []string{"-H", "fd://"}}, "/var/run/docker.sock"},
		{Daemon{Args: []string{"-H", "fd://", "--host", "unix:///a"}}, "/a"},
		{Daemon{Args: []string{"--host=unix:///b"}}, "/b"},
		{Daemon{Rootless: true}, "/run/user/1000/docker.sock"},
	} {
		if got := test.d.Socket(variable); got != test.want {
			t.Errorf("%+v: %s, want %s", test.d, got, test.want)
		}
	}
}
