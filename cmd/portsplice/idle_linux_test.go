package main

import (
	"fmt"
	"net"
	"os"
	"strings"
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

func (p *process) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Process.Pid))
	must(t, err)
	return len(entries)
}

// privateKB is the memory that the process has for itself alone.
func (p *process) privateKB(t *testing.T) (sum int) {
	t.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.Process.Pid))
	must(t, err)
	for line := range strings.Lines(string(rollup)) {
		var kB int
		if _, err := fmt.Sscanf(line, "Private_Dirty: %d kB", &kB); err == nil {
			sum += kB
		}
	}
	if sum == 0 {
		t.Fatalf("no private memory in %q", rollup)
	}
	return sum
}
