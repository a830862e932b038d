package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// dockerSocket is where dockerd is asked, unless DOCKER_HOST says another unix socket.
func dockerSocket() string {
	if path, is := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); is {
		return path
	}
	return "/var/run/docker.sock"
}

// containerNames asks dockerd for the containers that run, by their addresses. They are an extra: whoever may not ask, or
// is not answered within a second, does without.
func containerNames(socket string) map[netip.Addr]string {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	client := http.Client{Transport: transport, Timeout: time.Second}
	answer, err := client.Get("http://docker/containers/json")
	if err != nil {
		return nil
	}
	defer func() { _ = answer.Body.Close() }() // it was read only
	var containers []struct {
		Names           []string
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		}
	}
	const most = 64 << 20 // a container takes some 2 kB
	if answer.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(answer.Body, most)).Decode(&containers) != nil {
		return nil
	}
	names := map[netip.Addr]string{}
	for _, c := range containers {
		if len(c.Names) == 0 {
			continue
		}
		for _, n := range c.NetworkSettings.Networks {
			for _, text := range []string{n.IPAddress, n.GlobalIPv6Address} {
				if a, err := netip.ParseAddr(text); err == nil {
					names[a] = strings.TrimPrefix(c.Names[0], "/")
				}
			}
		}
	}
	return names
}
