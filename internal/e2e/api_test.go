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

// create makes a container that publishes ports. The server in it gets args.
func (a api) create(t testing.TB, args []string, ports ...port) container {
	t.Helper()
	type binding struct{ HostIP, HostPort string }
	exposed, bindings := map[string]struct{}{}, map[string][]binding{}
	for _, p := range ports {
		inside := strconv.Itoa(p.container) + "/" + p.proto
		exposed[inside] = struct{}{}
		bindings[inside] = append(bindings[inside], binding{p.address, strconv.Itoa(p.host)})
	}
	var created struct{ ID string }
	a.call(t, "POST", "/containers/create", map[string]any{
		"Image":        image,
		"Cmd":          args,
		"ExposedPorts": exposed,
		"HostConfig":   map[string]any{"PortBindings": bindings},
	}, &created)
	return container{a, created.ID}
}

// run creates a container, starts it and waits until its server answers.
func (a api) run(t testing.TB, ports ...port) container {
	t.Helper()
	c := a.create(t, nil, ports...)
	c.start(t)
	c.awaitServer(t)
	return c
}

func (c container) start(t testing.TB) {
	t.Helper()
	c.call(t, "POST", "/containers/"+c.id+"/start", nil, nil)
}

func (c container) stop(t testing.TB) {
	t.Helper()
	c.call(t, "POST", "/containers/"+c.id+"/stop", nil, nil)
}

// disconnect takes the container, which goes on running, off the default bridge.
func (c container) disconnect(t testing.TB) {
	t.Helper()
	c.call(t, "POST", "/networks/bridge/disconnect", map[string]any{"Container": c.id}, nil)
}

// ip returns the container's address on the bridge.
func (c container) ip(t testing.TB) string {
	t.Helper()
	var inspected struct{ NetworkSettings struct{ IPAddress string } }
	c.call(t, "GET", "/containers/"+c.id+"/json", nil, &inspected)
	return inspected.NetworkSettings.IPAddress
}

// awaitServer waits until the server accepts on the port that it binds last. It connects over the bridge: the
// proxies would accept before the server does.
func (c container) awaitServer(t testing.TB) {
	t.Helper()
	address := net.JoinHostPort(c.ip(t), strconv.Itoa(latePort))
	eventually(t, "the server in the container accepts on "+address, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}
