//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWalkThrough is the first thing a user tries, with the commands that a user types.
func TestWalkThrough(t *testing.T) {
	d := startDaemon(t)
	id, err := d.docker(t.Context(), "run", "-d", "-p", "3005:3005", image)
	if err != nil {
		t.Fatal(err)
	}
	c := container{d.api, id}
	c.awaitServer(t)

	if got, want := get(t, "http://127.0.0.1:3005/"), "container port 3005\n"; got != want {
		t.Errorf("page: got %q, want %q", got, want)
	}
	for table, hostIP := range map[string]string{"tcp": "0.0.0.0", "tcp6": "::"} {
		owners := slices.DeleteFunc(listenerOwners(t, table, 3005), process.isWorker)
		if len(owners) != 1 {
			t.Fatalf("processes that hold the listener on port 3005 of %s: got %v, want one", hostIP, owners)
		}
		if !owners[0].runs(t, program) {
			t.Errorf("the listener on port 3005 of %s does not belong to %s but to %v", hostIP, program, owners[0])
		}
		want := []string{program, "-proto", "tcp", "-host-ip", hostIP, "-host-port", "3005",
			"-container-ip", c.ip(t), "-container-port", "3005"}
		if diff := cmp.Diff(want, owners[0].args[:min(len(want), len(owners[0].args))]); diff != "" {
			t.Errorf("arguments of the proxy for %s (-want +got):\n%s", hostIP, diff)
		}
	}
}

func TestPublishedPortAnswersOnEveryHostAddress(t *testing.T) {
	d := startDaemon(t)
	d.run(t, port{"tcp", 8080, httpPort, ""})
	for _, host := range []string{"127.0.0.1", "::1", gateway} {
		t.Run(host, func(t *testing.T) {
			if got, want := get(t, pageURL(host, 8080)), pageOf(httpPort); got != want {
				t.Errorf("page: got %q, want %q", got, want)
			}
		})
	}
}

// TestContainersReachPublishedPort sends requests from containers to the host's address on their bridge. The
// container that publishes the port reaches itself that way too.
func TestContainersReachPublishedPort(t *testing.T) {
	d := startDaemon(t)
	publisher, other := d.run(t, port{"tcp", 8080, httpPort, ""}), d.run(t)
	for name, c := range map[string]container{"another container": other, "the container itself": publisher} {
		t.Run(name, func(t *testing.T) {
			query := url.Values{"url": {pageURL(gateway, 8080)}}
			if got, want := get(t, pageURL(c.ip(t), httpPort)+"fetch?"+query.Encode()), pageOf(httpPort); got != want {
				t.Errorf("page: got %q, want %q", got, want)
			}
		})
	}
}

// TestPortRange publishes 50 ports, the case where a slow start adds up (moby#14288).
func TestPortRange(t *testing.T) {
	const first, count = 3100, 50
	d := startDaemon(t)
	var ports []port
	for i := range count {
		ports = append(ports, tcp(first+i))
	}
	c := d.create(t, []string{"-http", strconv.Itoa(first), "-http-count", strconv.Itoa(count)}, ports...)

	began := time.Now()
	c.start(t)
	t.Logf("%d ports: running %v after the request", count, time.Since(began).Round(time.Millisecond))
	c.awaitServer(t)
	t.Logf("%d ports: the server accepts %v after the request", count, time.Since(began).Round(time.Millisecond))

	if got, want := len(proxies(t)), 2*count; got != want {
		t.Errorf("proxies: got %d, want %d: one for each port and address family", got, want)
	}
	for _, p := range ports {
		for _, host := range []string{"127.0.0.1", "::1"} {
			if got, want := get(t, pageURL(host, p.host)), pageOf(p.container); got != want {
				t.Errorf("%s: got %q, want %q", pageURL(host, p.host), got, want)
			}
		}
	}

	began = time.Now()
	c.stop(t)
	t.Logf("%d ports: stopped %v after the request", count, time.Since(began).Round(time.Millisecond))
	expectNoProxy(t)
}

// TestPortInUse shows what a user reads who publishes a port that another program has.
func TestPortInUse(t *testing.T) {
	d := startDaemon(t)
	for _, test := range []struct {
		name    string
		occupy  func(address string) (io.Closer, error)
		publish string
		address string
	}{
		{"tcp on every address", listenOn("tcp4"), "8080:3005", "0.0.0.0:8080"},
		{"tcp on one address", listenOn("tcp4"), "127.0.0.1:8081:3005", "127.0.0.1:8081"},
		{"tcp on IPv6 alone", listenOn("tcp6"), "8082:3005", "[::]:8082"},
		{"udp", listenPacketOn("udp4"), "8083:3006/udp", "0.0.0.0:8083"},
	} {
		t.Run(test.name, func(t *testing.T) {
			other, err := test.occupy(test.address)
			if err != nil {
				t.Fatal(err)
			}
			name := "web-" + test.address[strings.LastIndex(test.address, ":")+1:]
			_, err = d.docker(t.Context(), "run", "-d", "--name", name, "-p", test.publish, image)
			if closeErr := other.Close(); closeErr != nil {
				t.Fatal(closeErr)
			}
			if err == nil {
				t.Fatal("docker run: no error although the port is in use")
			}
			t.Log(err)
			for _, want := range []string{test.address, "address already in use"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("docker's error does not say %q: %v", want, err)
				}
			}
			expectNoProxy(t)

			// The user ends the other program and tries again.
			if _, err := d.docker(t.Context(), "start", name); err != nil {
				t.Errorf("with the port free again: %v", err)
			}
			if _, err := d.docker(t.Context(), "rm", "-f", name); err != nil {
				t.Error(err)
			}
		})
	}
}

func listenOn(network string) func(string) (io.Closer, error) {
	return func(address string) (io.Closer, error) { return net.Listen(network, address) }
}

func listenPacketOn(network string) func(string) (io.Closer, error) {
	return func(address string) (io.Closer, error) { return net.ListenPacket(network, address) }
}

func pageURL(host string, port int) string {
	return "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/"
}

// pageOf is the page that the server serves on a port of the container.
func pageOf(port int) string { return fmt.Sprintf("container port %d\n", port) }
