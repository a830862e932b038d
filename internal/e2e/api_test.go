//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// api is the part of Docker's HTTP API that the tests use.
type api struct{ client *http.Client }

func newAPI(socket string) api {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return api{&http.Client{
		Timeout:   4 * patience, // longer than the 16 s that dockerd gives a proxy to start
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// do sends a request, with in as its JSON body unless it is nil or a reader, and decodes the answer into out
// unless that is nil. An answer that is an error becomes one.
func (a api) do(ctx context.Context, method, path string, in, out any) error {
	body, ok := in.(io.Reader)
	if !ok && in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (a api) call(t testing.TB, method, path string, in, out any) {
	t.Helper()
	if err := a.do(t.Context(), method, path, in, out); err != nil {
		t.Fatal(err)
	}
}

func (a api) ping(ctx context.Context) error { return a.do(ctx, "GET", "/_ping", nil, nil) }

func (a api) importImage(t testing.TB, tar io.Reader) {
	t.Helper()
	query := url.Values{"fromSrc": {"-"}, "repo": {image}, "changes": {`ENTRYPOINT ["/server"]`}}
	a.call(t, "POST", "/images/create?"+query.Encode(), tar, nil)
}

// port is one published port, as -p would name it.
type port struct {
	proto     string
	host      int
	container int
	address   string // of the host; every one if empty
}

func tcp(number int) port { return port{"tcp", number, number, ""} }

var udpEcho = port{"udp", echoPort, echoPort, ""}

// container is one that the daemon has created.
type container struct {
	api
	id string
}

// settings are those of a container, under the API's names. The daemon chooses what is left out.
type settings struct {
	Image            string
	Hostname         string   `json:",omitempty"`
	User             string   `json:",omitempty"`
	Entrypoint       []string `json:",omitempty"` // the server if left out
	Cmd              []string
	ExposedPorts     map[string]struct{}
	HostConfig       hostConfig
	NetworkingConfig networkingConfig
}

type hostConfig struct {
	PortBindings map[string][]binding
	Binds        []string          `json:",omitempty"`
	Tmpfs        map[string]string `json:",omitempty"`
	NetworkMode  string            `json:",omitempty"`
}

type binding struct{ HostIP, HostPort string }

type networkingConfig struct {
	EndpointsConfig map[string]endpoint `json:",omitempty"`
}

type endpoint struct{ IPAMConfig ipamConfig }

type ipamConfig struct{ IPv4Address string }

// create makes a container that publishes ports. The server in it gets args.
func (a api) create(t testing.TB, args []string, ports ...port) container {
	t.Helper()
	return a.createAs(t, settings{Cmd: args}, ports...)
}

// createAs makes a container of the server's image that publishes ports.
func (a api) createAs(t testing.TB, s settings, ports ...port) container {
	t.Helper()
	s.Image, s.ExposedPorts, s.HostConfig.PortBindings = image, map[string]struct{}{}, map[string][]binding{}
	for _, p := range ports {
		inside := strconv.Itoa(p.container) + "/" + p.proto
		s.ExposedPorts[inside] = struct{}{}
		s.HostConfig.PortBindings[inside] = append(s.HostConfig.PortBindings[inside], binding{p.address, strconv.Itoa(p.host)})
	}
	var created struct{ ID string }
	a.call(t, "POST", "/containers/create", s, &created)
	return container{a, created.ID}
}

// createNetwork makes a bridge with a subnet, on which containers may choose their addresses. When the test ends none may be
// on it, and it is removed: dockerd would leave the bridge behind.
func (a api) createNetwork(t testing.TB, name, subnet string) {
	t.Helper()
	a.call(t, "POST", "/networks/create", map[string]any{
		"Name": name,
		"IPAM": map[string]any{"Config": []map[string]string{{"Subnet": subnet}}},
	}, nil)
	t.Cleanup(func() {
		if err := a.do(context.WithoutCancel(t.Context()), "DELETE", "/networks/"+name, nil, nil); err != nil {
			t.Error(err)
		}
	})
}

// run creates a container, starts it and waits until its server answers.
func (a api) run(t testing.TB, ports ...port) container {
	t.Helper()
	return a.runAs(t, settings{}, ports...)
}

func (a api) runAs(t testing.TB, s settings, ports ...port) container {
	t.Helper()
	c := a.createAs(t, s, ports...)
	c.start(t)
	c.awaitServer(t)
	return c
}

func (c container) start(t testing.TB) {
	t.Helper()
	rig.Must(t, c.begin(t.Context()))
}

// begin starts the container, for a test that starts several at once.
func (c container) begin(ctx context.Context) error {
	return c.do(ctx, "POST", "/containers/"+c.id+"/start", nil, nil)
}

func (c container) stop(t testing.TB) {
	t.Helper()
	c.call(t, "POST", "/containers/"+c.id+"/stop", nil, nil)
}

// cut stops the container without giving it time to end by itself.
func (c container) cut(ctx context.Context) error {
	return c.do(ctx, "POST", "/containers/"+c.id+"/stop?t=0", nil, nil)
}

// disconnect takes the container, which goes on running, off a network.
func (c container) disconnect(ctx context.Context, network string) error {
	return c.do(ctx, "POST", "/networks/"+network+"/disconnect", map[string]any{"Container": c.id}, nil)
}

// connect gives the container an address on a network.
func (c container) connect(ctx context.Context, network, address string) error {
	return c.do(ctx, "POST", "/networks/"+network+"/connect", map[string]any{
		"Container":      c.id,
		"EndpointConfig": endpoint{ipamConfig{address}},
	}, nil)
}

// ip returns the container's address on the bridge.
func (c container) ip(t testing.TB) string {
	t.Helper()
	var inspected struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	c.call(t, "GET", "/containers/"+c.id+"/json", nil, &inspected)
	return inspected.NetworkSettings.Networks["bridge"].IPAddress
}

// awaitServer waits until the server accepts on the port that it binds last.
func (c container) awaitServer(t testing.TB) {
	t.Helper()
	c.awaitPort(t, latePort)
}

// awaitPort waits until somebody in the container accepts on a port. It connects over the bridge: the proxies would accept
// before that.
func (c container) awaitPort(t testing.TB, number int) {
	t.Helper()
	address := net.JoinHostPort(c.ip(t), strconv.Itoa(number))
	eventually(t, "the container accepts on "+address, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}
