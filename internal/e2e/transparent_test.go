//go:build e2e && linux

package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestTransparentClients: docker shows why a port is refused, and runs the container once the commands of
// docs/client-addresses.md have been run. The container sees clients of another host and of another docker network; what is
// on its own network is refused.
func TestTransparentClients(t *testing.T) {
	const near, far = "198.18.9.1", "198.18.9.2"
	page, err := os.ReadFile("../../docs/client-addresses.md")
	rig.Must(t, err)
	run := func(begin string) {
		t.Helper()
		_, block, found := strings.Cut(string(page), "```sh\n"+begin)
		commands, _, _ := strings.Cut(block, "```")
		if out, err := exec.Command("sh", "-ec", begin+commands).CombinedOutput(); err != nil || !found {
			t.Fatalf("the commands that begin with %q: %v\n%s", begin, err, out)
		}
	}
	t.Setenv("PORTSPLICE_TRANSPARENT", "on")
	d := startDaemon(t)
	_, err = d.docker(t.Context(), "run", "-d", "-p", "0.0.0.0:3005:3005", image)
	if want := "-transparent: no rule of ip-rule(8) has"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("docker run: %v, want %s", err, want)
	}
	run("nft add table")
	t.Cleanup(func() { run("nft delete table") })
	d.run(t, tcp(httpPort), udpEcho)

	here, err := netlab.Here()
	rig.Must(t, err)
	t.Cleanup(here.Close)
	other := rig.Namespace(t)
	rig.Must(t, netlab.Cable("cable", here, netip.MustParsePrefix(near+"/30"), other, netip.MustParsePrefix(far+"/30")))
	var conn net.Conn
	rig.Must(t, other.Do(func() error {
		conn = dial(t, "tcp", net.JoinHostPort(near, strconv.Itoa(httpPort)))
		echoDatagram(t, dial(t, "udp", net.JoinHostPort(near, strconv.Itoa(echoPort))), 1400)
		return nil
	}))
	_, err = io.WriteString(conn, "GET /client HTTP/1.0\r\n\r\n")
	rig.Must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	rig.Must(t, err)
	if got, err := io.ReadAll(resp.Body); string(got) != far || err != nil {
		t.Errorf("the container sees %s, %v; want %s", got, err, far)
	}
	if got := get(t, pageURL("127.0.0.1", httpPort)+"client"); got != gateway {
		t.Errorf("of this host the container sees %s, want %s", got, gateway)
	}

	// ask has the container with that address ask what its own is.
	ask := func(address string) (status int, answer string) {
		t.Helper()
		query := url.Values{"url": {pageURL(gateway, httpPort) + "client"}}
		resp, err := visitor.Get(pageURL(address, httpPort) + "fetch?" + query.Encode())
		rig.Must(t, err)
		defer func() { _ = resp.Body.Close() }() // read to its end
		b, err := io.ReadAll(resp.Body)
		rig.Must(t, err)
		return resp.StatusCode, string(b)
	}
	const network, stranger = "others", "198.19.0.7"
	d.createNetwork(t, network, "198.19.0.0/24")
	c := d.createAs(t, settings{HostConfig: hostConfig{NetworkMode: network}, NetworkingConfig: networkingConfig{
		EndpointsConfig: map[string]endpoint{network: {IPAMConfig: ipamConfig{IPv4Address: stranger}}}}})
	c.start(t)
	eventually(t, "the container of another network answers", func() bool {
		resp, err := visitor.Get(pageURL(stranger, httpPort))
		return err == nil && resp.Body.Close() == nil
	})
	if status, answer := ask(stranger); status != http.StatusOK || answer != stranger {
		t.Errorf("of the container %s the other sees %s", stranger, answer)
	}
	neighbour := d.run(t)
	status, answer := ask(neighbour.ip(t))
	reset := strings.Contains(answer, "connection reset") || strings.Contains(answer, "broken pipe") // one that came before the question
	if status != http.StatusBadGateway || !reset {
		t.Errorf("a container of the same network gets %d, %s; want a reset", status, answer)
	}
	rig.Must(t, c.disconnect(t.Context(), network))
}
