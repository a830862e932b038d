package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
)

// served are the ways in which a port is served: by a worker, and by the program alone.
func served(t *testing.T) map[string]func(run) run {
	t.Helper()
	return map[string]func(run) run{"worker": newLab(t).run, "alone": func(r run) run { return r }}
}

// TestAccessLog: a connection that has ended has a line, in words or as an object, with each of the engines.
func TestAccessLog(t *testing.T) {
	const stream = 1 << 20
	for how, by := range served(t) {
		for _, engine := range engines {
			for _, format := range []string{"text", "json"} {
				t.Run(how+"/"+engine+"/"+format, func(t *testing.T) {
					frontend := freePort(t, "tcp", ours())
					backend := rig.Serve(t, rig.Listen(t, ours()), func(conn *net.TCPConn) {
						_, err := conn.Write(make([]byte, stream))
						rig.Check(t, err)
					})
					args := arguments("tcp", frontend, backend, "-engine", engine, "-access-log", "on", "-log-format", format)
					p := by(run{args: args}).serve(t)
					conn := dial(t, "tcp", frontend)
					client := conn.LocalAddr()
					n, err := io.Copy(io.Discard, conn)
					must(t, err)
					if n != stream {
						t.Errorf("%d bytes came, want %d", n, stream)
					}
					must(t, conn.Close())
					until(t, "there is a line", func() bool { return len(p.log()) == 1 && strings.HasSuffix(p.log()[0], "\n") })
					line := p.log()[0]
					want := fmt.Sprintf("access: client %v, frontend %v/tcp, backend %v, 0 bytes in, %d bytes out, ", client, frontend, backend, stream)
					if format == "text" {
						if !strings.HasPrefix(line, "portsplice: "+want) || !regexp.MustCompile(`, \d.*s, ended by backend: closed\n$`).MatchString(line) {
							t.Errorf("got %q, want portsplice: %s..., ended by backend: closed", line, want)
						}
						return
					}
					var object struct {
						Level, Msg, Port, Operation, Client, Backend, Reason string

						Received int     `json:"received_bytes"`
						Sent     int     `json:"sent_bytes"`
						Connect  float64 `json:"connect_seconds"`
						Lasted   float64 `json:"duration_seconds"`
						EndedBy  string  `json:"ended_by"`
					}
					must(t, json.Unmarshal([]byte(line), &object))
					if o := object; o.Level != "INFO" || !strings.HasPrefix(o.Msg, want) || o.Port != frontend.String()+"/tcp" ||
						o.Operation != "access" || o.Client != client.String() || o.Backend != backend.String() || o.Received != 0 ||
						o.Sent != stream || o.Lasted < o.Connect || o.EndedBy != "backend" || o.Reason != "closed" {
						t.Errorf("got %s", line)
					}
				})
			}
		}
	}
}

// TestAccessLogOfFlows: a UDP flow has a line when it is forgotten.
func TestAccessLogOfFlows(t *testing.T) {
	for how, by := range served(t) {
		for _, engine := range []string{"auto", "fallback"} {
			t.Run(how+"/"+engine, func(t *testing.T) {
				frontend, backend := freePort(t, "udp", ours()), echo(t, "udp", ours())
				p := by(run{args: arguments("udp", frontend, backend, "-engine", engine, "-access-log", "on", "-udp-timeout", "10ms")}).serve(t)
				conn := dial(t, "udp", frontend)
				_, err := conn.Write([]byte("hello")) // the answer may come too late
				must(t, err)
				until(t, "there is a line", func() bool { return len(p.log()) > 0 && strings.HasSuffix(p.log()[0], "\n") })
				want := fmt.Sprintf("portsplice: access: client %v, frontend %v/udp, backend %v, 5 bytes in, ", conn.LocalAddr(), frontend, backend)
				if line := p.log()[0]; !strings.HasPrefix(line, want) || !strings.HasSuffix(line, ", ended by portsplice: idle\n") {
					t.Errorf("got %q, want %s..., ended by portsplice: idle", line, want)
				}
			})
		}
	}
}

// TestAccessLogOfAPortThatEnds: connections that end with their port are in the log, too, where a worker writes it.
func TestAccessLogOfAPortThatEnds(t *testing.T) {
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	p := l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-access-log", "on")}).serve(t)
	const connections = 3
	for range connections {
		exchange(t, dial(t, "tcp", frontend), "hello")
	}
	p.signalled(t, syscall.SIGINT)
	until(t, "all are in the log", func() bool {
		lines := slices.DeleteFunc(p.log(), func(line string) bool {
			return !strings.Contains(line, " 5 bytes in, 5 bytes out, ") || !strings.HasSuffix(line, ", ended by portsplice: stopped\n")
		})
		return len(lines) == connections
	})
}

// TestAccessLogAndLocalBypass: connections that go without the proxy would be in no log.
func TestAccessLogAndLocalBypass(t *testing.T) {
	l := newLab(t)
	const reason = "-access-log is on, and would not have the connections that go without the proxy"
	start := func(bypass string) (*process, netip.AddrPort) {
		frontend := freePort(t, "tcp", ours())
		args := arguments("tcp", frontend, echo(t, "tcp", ours()), "-access-log", "on", "-local-bypass", bypass)
		return l.run(run{args: args}).start(t), frontend
	}
	if p, _ := start("require"); p.status != "1\n-local-bypass require: "+reason+"\n" {
		t.Errorf("the status is %q", p.status)
	}
	p, frontend := start("auto")
	if port := l.listed(t, frontend); p.status != "0\n" || port.Bypass != reason {
		t.Errorf("the status is %q, and the worker tells %q", p.status, port.Bypass)
	}
	exchange(t, dial(t, "tcp", frontend), "hello")
	until(t, "the warning is in the log", func() bool {
		return slices.Contains(p.log(), "portsplice: -local-bypass auto: not here: "+reason+"\n")
	})
}

// TestJournalOfConnections: in the journal a connection's line and a failure have a field for each thing that they say.
func TestJournalOfConnections(t *testing.T) {
	needroot.Check(t)
	journal, read := fakeJournal(t)
	frontend := freePort(t, "tcp", ours())
	backend := rig.Refusing(t)
	p := journal(arguments("tcp", frontend, backend, "-access-log", "on"))
	rig.WantReset(t, frontend)
	lines := map[string]map[string]string{}
	for range 2 {
		line := read(t)
		lines[line["PORTSPLICE_OPERATION"]] = line
	}
	for operation, want := range map[string]map[string]string{
		"dial":   {"PRIORITY": "4", "PORTSPLICE_LEFT_OUT": "0"},
		"access": {"PRIORITY": "6", "PORTSPLICE_ENDED_BY": "backend", "PORTSPLICE_REASON": "dial failed", "PORTSPLICE_SENT_BYTES": "0"},
	} {
		got := lines[operation]
		want["PORTSPLICE_PORT"], want["PORTSPLICE_BACKEND"] = frontend.String()+"/tcp", backend.String()
		want["PORTSPLICE_ERROR"] = "connect: connection refused"
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q, in %v", operation, name, got[name], value, got)
			}
		}
		if client, err := netip.ParseAddrPort(got["PORTSPLICE_CLIENT"]); err != nil || !client.Addr().IsLoopback() {
			t.Errorf("%s: the client is %v, %v", operation, client, err)
		}
	}
	p.signalled(t, syscall.SIGINT)
}

// TestHistograms: the worker tells how long connections and dials have taken, of a port that had any.
func TestHistograms(t *testing.T) {
	l := newLab(t)
	_, frontend := l.publish(t, "tcp", echo(t, "tcp", ours()))
	if h := l.listed(t, frontend).Histograms; h != nil {
		t.Errorf("before the first connection there is %v", h)
	}
	const connections = 3
	for range connections {
		conn := dial(t, "tcp", frontend)
		exchange(t, conn, "hello")
		must(t, conn.Close())
	}
	until(t, "all have ended", func() bool {
		return l.listed(t, frontend).Histograms["connection-duration"].Count == connections
	})
	for name, h := range l.listed(t, frontend).Histograms {
		sum := h.Zero
		for _, n := range h.Buckets {
			sum += n
		}
		if h.Schema != 2 || h.Count != connections || sum != connections || h.Sum < 0 {
			t.Errorf("%s is %+v, want schema 2 and %d connections", name, h, connections)
		}
	}
	if h := l.asked(t, "list", frontend).Histograms; h != nil {
		t.Errorf("ps is told %v, and does not show it", h)
	}
}
