package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/needroot"
)

// TestReloadOfHeaders: clients that come after a reload are told of by a header, or are to bring one, or neither any more;
// a connection that was there goes on as it began.
func TestReloadOfHeaders(t *testing.T) {
	const told = "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			l := newLab(t)
			f := newOptionsFile(t, "{}")
			frontend := freePort(t, "tcp", ours())
			args := arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine)
			l.run(run{args: args, env: f.env()}).serve(t)
			before := dial(t, "tcp", frontend)
			exchange(t, before, "hello")
			for _, step := range []struct{ options, asks, gets string }{
				{`{ "proxy-protocol": "v1" }`, "", "OWN"},
				{`{ "proxy-protocol": "v1", "accept-proxy-protocol": "127.0.0.0/8" }`, told, told},
				{`{ "accept-proxy-protocol": "127.0.0.0/8" }`, told, ""},
				{`{}`, told, told},
			} {
				f.write(t, step.options)
				out, _, _ := control(t, "reload")
				contains(t, step.options, out, "other ones for 1\n")
				conn := dial(t, "tcp", frontend)
				want := strings.ReplaceAll(step.gets, "OWN", headerFor(conn, frontend)) + "hello"
				_, err := io.WriteString(conn, step.asks+"hello")
				must(t, err)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); string(got) != want {
					t.Errorf("after %s the backend is sent %q, %v; want %q", step.options, got, err, want)
				}
				exchange(t, before, "hello")
			}
		})
	}
}

// TestReloadOfLogs: a port's lines become objects, and connections that end are in its access log, those that were there
// before the reload as well.
func TestReloadOfLogs(t *testing.T) {
	l := newLab(t)
	f := newOptionsFile(t, "{}")
	tcpAddr, udpAddr := freePort(t, "tcp", ours()), freePort(t, "udp", ours())
	serve := func(protocol string, frontend netip.AddrPort) (*process, func()) {
		args := arguments(protocol, frontend, echo(t, protocol, ours()), "-engine", "fallback")
		p := l.run(run{args: args, env: f.env()}).serve(t)
		conn := dial(t, protocol, frontend)
		exchange(t, conn, "hello")
		return p, func() { must(t, conn.Close()) }
	}
	tcp, end := serve("tcp", tcpAddr)
	udp, _ := serve("udp", udpAddr) // which cannot change other options
	f.write(t, `{ "access-log": "on", "log-format": "json" }`)
	out, _, _ := control(t, "reload")
	contains(t, "reload", out, "access-log is on now, and was off\n", "log-format is json now, and was text\n", "other ones for 2\n")
	end()
	for _, test := range []struct {
		p    *process
		want []string
	}{
		{tcp, []string{`"msg":"reload: access-log is on now`, `"operation":"access"`}},
		{udp, []string{`"msg":"reload: access-log is on now`}},
	} {
		until(t, "the lines are there", func() bool { return len(test.p.log()) == len(test.want) })
		for _, want := range test.want { // in any order
			if log := test.p.log(); !slices.ContainsFunc(log, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("the log is %q, want a line with %s", log, want)
			}
		}
	}
	if n, is := l.listed(t, tcpAddr).Counters["access-log-dropped"]; n != 0 || !is {
		t.Errorf("%d lines are dropped, counted: %v; want none, and true", n, is)
	}
	f.write(t, `{ "udp-timeout": "1s", "log-format": "json" }`)
	out, _, _ = control(t, "reload")
	contains(t, "a portable relay", out, "access-log stays on: the portable relay keeps the options that it began with\n",
		"/tcp: access-log is off now, and was on\n")
}

// TestReloadOfBypass: local clients go around the proxy, or come to it again, from the reload on; connections live on. What
// requires the bypass cannot have an access log, and is told so.
func TestReloadOfBypass(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	f := newOptionsFile(t, "{}")
	frontend := freePort(t, "tcp", ours())
	p := l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours())), env: f.env()}).serve(t)
	var all []net.Conn
	for i, step := range []struct{ options, says, accepted, bypassed string }{
		{`{}`, "other ones for 0\n", "1", ""},
		{`{ "local-bypass": "require" }`, "local-bypass is require now, and was off\n", "1", "1"},
		{`{ "local-bypass": "require", "access-log": "on" }`,
			"access-log stays off: -local-bypass require: -access-log is on, and would not have the connections that go without the proxy\n",
			"1", "2"},
		{`{ "local-bypass": "off", "access-log": "on" }`, "local-bypass is off now, and was require\n", "2", "2"},
		{`{ "local-bypass": "auto", "access-log": "on" }`, "local-bypass is auto now, and was off\n", "3", "2"},
		{`{ "local-bypass": "auto" }`, "access-log is off now, and was on\n", "3", "3"},
	} {
		f.write(t, step.options)
		out, said, _ := control(t, "reload")
		contains(t, step.options, out+said, step.says)
		conn := dial(t, "tcp", frontend)
		all = append(all, conn)
		exchange(t, conn, fmt.Sprintf("hello %d", i))
		if c := p.counters(t); c["accepted"] != step.accepted || c["bypassed"] != step.bypassed {
			t.Errorf("after %s %s are accepted and %q bypassed, want %s and %q",
				step.options, c["accepted"], c["bypassed"], step.accepted, step.bypassed)
		}
	}
	for _, conn := range all {
		exchange(t, conn, "goodbye")
	}
	p.signalled(t, syscall.SIGINT)
}
