//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// image is the name under which a daemon knows the server's image.
const image = "portsplice-e2e"

// What the server in the container listens on unless told otherwise.
const (
	httpPort = 3005
	echoPort = 3006
	latePort = 3007
)

// withPrograms gives a container the programs of the host beside the server.
var withPrograms = []string{"/usr:/usr:ro", "/etc/passwd:/etc/passwd:ro"}

// imageTar returns the root file system of the image: the server, statically linked, and where programs of the host, which
// are none of the image's, look for their libraries.
var imageTar = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the namespace ends with its /run
	path := filepath.Join(dir, "server")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the server: %w\n%s", err, out)
	}
	server, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "server", Mode: 0o755, Size: int64(len(server))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(server); err != nil {
		return nil, err
	}
	for _, name := range []string{"bin", "lib", "lib64"} { // as in any system whose /usr is merged
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "usr/" + name, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
})
