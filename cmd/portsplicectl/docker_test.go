package main

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/rig"
)

// dockerd answers on a unix socket, until the test ends.
func dockerd(t *testing.T, answer http.HandlerFunc) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	rig.Must(t, err)
	s := http.Server{Handler: answer}
	ended := make(chan struct{})
	go func() {
		_ = s.Serve(l) // until it is closed
		close(ended)
	}()
	t.Cleanup(func() {
		rig.Must(t, s.Close())
		<-ended
	})
	return socket
}

// TestContainerNames: each address of a container has its name; whatever dockerd does otherwise, there are none.
func TestContainerNames(t *testing.T) {
	const containers = `[{"Id":"1","Names":["/web","/other/alias"],"NetworkSettings":{"Networks":{
		"bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":"fd00::2"},"front":{"IPAddress":"172.18.0.9","GlobalIPv6Address":""}}}},
		{"Id":"2","Names":[],"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.3"}}}}]`
	released := make(chan struct{})
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   map[netip.Addr]string
	}{
		{"some", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/containers/json" {
				_, _ = io.WriteString(w, containers) // the client notices
			}
		}, map[netip.Addr]string{
			netip.MustParseAddr("172.17.0.2"): "web", netip.MustParseAddr("fd00::2"): "web", netip.MustParseAddr("172.18.0.9"): "web",
		}},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, nil},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, nil},
		{"silent", func(http.ResponseWriter, *http.Request) { <-released }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := dockerd(t, test.answer)
			same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
			if diff := cmp.Diff(test.want, containerNames(socket), same); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	close(released)
	if got := containerNames(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("without dockerd there are %v", got)
	}
	t.Setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
	if got := dockerSocket(); got != "/run/user/1000/docker.sock" {
		t.Errorf("the socket is %s", got)
	}
}
