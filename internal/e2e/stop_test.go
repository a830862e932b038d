//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
)

func TestStopEndsProxiesAndFreesPorts(t *testing.T) {
	d := startDaemon(t)
	c := d.run(t, tcp(httpPort), tcp(echoPort), udpEcho)
	if got, want := len(proxies(t)), 6; got != want {
		t.Errorf("proxies of the running container: got %d, want %d", got, want)
	}
	if got, want := get(t, pageURL("127.0.0.1", httpPort)), pageOf(httpPort); got != want {
		t.Errorf("page: got %q, want %q", got, want)
	}

	promptly(t, "docker stop", func() { c.stop(t) })
	expectNoProxy(t)
	expectFree(t, "tcp4", httpPort)
	expectFree(t, "tcp6", httpPort)
	expectFree(t, "udp4", echoPort)
	expectFree(t, "udp6", echoPort)
	expectNoComplaint(t, d)
}

// TestLiveConnectionsDoNotHoldUpTheEnd ends a published port in the two ways that Docker has while clients keep
// their connections open.
func TestLiveConnectionsDoNotHoldUpTheEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(container)
	}{
		{"docker stop", func(c container) { c.stop(t) }},                                                      // the backend ends first, then the proxy
		{"docker network disconnect", func(c container) { rig.Must(t, c.disconnect(t.Context(), "bridge")) }}, // the backend lives on
	} {
		t.Run(test.name, func(t *testing.T) {
			d := startDaemon(t)
			c := d.run(t, tcp(echoPort), udpEcho)
			var streams []net.Conn
			for _, host := range []string{"127.0.0.1", "::1", gateway} {
				address := net.JoinHostPort(host, fmt.Sprint(echoPort))
				conn := dial(t, "tcp", address)
				echoStream(t, conn, 1000)
				echoDatagram(t, dial(t, "udp", address), 1000)
				streams = append(streams, conn)
			}

			promptly(t, test.name, func() { test.end(c) })
			expectNoProxy(t)
			for _, conn := range streams {
				n, err := conn.Read(make([]byte, 1))
				if n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v: read %d bytes and error %v, want the connection's end", conn.RemoteAddr(), n, err)
				}
			}
			expectNoComplaint(t, d)
		})
	}
}

// TestKilledDaemonLeavesNoProxy kills dockerd, which cannot stop its proxies then; a proxy that lived on would
// hold the port against the next dockerd.
func TestKilledDaemonLeavesNoProxy(t *testing.T) {
	d := startDaemon(t)
	c := d.run(t, tcp(httpPort), tcp(echoPort), udpEcho)
	conn := dial(t, "tcp", fmt.Sprintf("127.0.0.1:%d", echoPort))
	echoStream(t, conn, 1000)

	d.kill(t)
	eventually(t, "no proxy is left", func() bool { return len(proxies(t)) == 0 })
	expectFree(t, "tcp4", httpPort)
	expectFree(t, "udp6", echoPort)
	if filepath.Base(program) == "portsplice-shim" { // the container lives, and so does the worker
		echoStream(t, conn, 1000)
	}

	d.start(t) // ends the container that outlived the first one
	c.start(t)
	c.awaitServer(t)
	if got, want := get(t, pageURL("127.0.0.1", httpPort)), pageOf(httpPort); got != want {
		t.Errorf("page after the restart: got %q, want %q", got, want)
	}
}

// promptly fails the test if an end takes longer than a busy machine needs for it (a few tenths of a second when
// idle). The daemon waits for its proxies: one that lingers shows here.
func promptly(t *testing.T, what string, end func()) {
	t.Helper()
	const bound = 5 * time.Second
	began := time.Now()
	end()
	took := time.Since(began).Round(time.Millisecond)
	t.Logf("%s: %v", what, took)
	if took > bound {
		t.Errorf("%s took %v, more than %v", what, took, bound)
	}
}

// expectNoProxy fails the test if a proxy runs at this moment: dockerd has waited for them, so there is nothing
// to wait for.
func expectNoProxy(t *testing.T) {
	t.Helper()
	for _, p := range proxies(t) {
		t.Errorf("still running: %s", p.describe())
	}
}

func expectNoComplaint(t *testing.T, d *daemon) {
	t.Helper()
	if lines := d.complaints(t); len(lines) > 0 {
		t.Errorf("dockerd complains:\n%s", strings.Join(lines, "\n"))
	}
}

// expectFree fails the test if a port cannot be bound on every address soon: a process that ends has given up its
// memory, and its name in /proc, before its sockets.
func expectFree(t *testing.T, network string, port int) {
	t.Helper()
	occupy := listenOn(network)
	if strings.HasPrefix(network, "udp") {
		occupy = listenPacketOn(network)
	}
	var err error
	free := waitFor(func() bool {
		var socket io.Closer
		if socket, err = occupy(fmt.Sprintf(":%d", port)); err == nil {
			err = socket.Close()
		}
		return err == nil
	})
	if !free {
		t.Errorf("port is not free: %v", err)
	}
}
