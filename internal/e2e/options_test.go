//go:build e2e && linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOptionsFile: docker run shows file, line and reason, and works when the file is right.
func TestOptionsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "portsplice.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PORTSPLICE_CONFIG", path)
	d := startDaemon(t)
	write("{ \"ports\": {\n\"3005/tcp\": { \"dial-timeot\": \"5s\" } } }")
	_, err := d.docker(t.Context(), "run", "-d", "-p", "3005:3005", image)
	if want := path + `:2: "3005/tcp": "dial-timeot": no such option; "dial-timeout" is one`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("docker run: %v, want %s", err, want)
	}
	write("{ \"ports\": {\n\"3005/tcp\": { \"dial-timeout\": \"5s\" } } }")
	id, err := d.docker(t.Context(), "run", "-d", "-p", "3005:3005", image)
	if err != nil {
		t.Fatal(err)
	}
	c := container{d.api, id}
	c.awaitServer(t)
	if got, want := get(t, "http://127.0.0.1:3005/"), "container port 3005\n"; got != want {
		t.Errorf("page: got %q, want %q", got, want)
	}
}
