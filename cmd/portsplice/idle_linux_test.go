package main

import (
	"fmt"
	"net"
	"syscall"
	"testing"
)

// TestIdleConnections_moby11185: an idle connection costs two descriptors, less than 0.5 kB of private memory and no
// pipe, also after it has carried a message.
func TestIdleConnections_moby11185(t *testing.T) {
	const connections, warmUp = 5000, 500
	frontend := freePort(t, "tcp", ours())
	p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", "splice")}.serve(t)
	conns := make([]net.Conn, 0, connections)
	open := func(n int) {
		for len(conns) < n {
			conn := dial(t, "tcp", frontend)
			exchange(t, conn, "hello")
			conns = append(conns, conn)
		}
	}
	open(warmUp) // the heap's own structures are there
	memory, descriptors := p.privateKB(t), p.descriptors(t)
	open(connections)
	const added = connections - warmUp
	if got, want := p.descriptors(t)-descriptors, 2*added; got != want {
		t.Errorf("%d idle connections have %d descriptors, want %d", added, got, want)
	}
	perConnection := float64(p.privateKB(t)-memory) / added
	t.Logf("%.3f kB of private memory for an idle connection", perConnection)
	if perConnection >= 0.5 {
		t.Errorf("an idle connection costs %.3f kB of private memory, want less than 0.5", perConnection)
	}
	if c := p.counters(t); c["pipes"] != "0" || c["active"] != fmt.Sprint(connections) {
		t.Errorf("%v; want %d active and no pipes", c, connections)
	}
	p.signalled(t, syscall.SIGTERM)
}
