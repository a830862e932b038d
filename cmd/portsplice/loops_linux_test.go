package main

import (
	"net"
	"sync"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestLoopsFollowTheLoad streams over several connections at once: with two CPUs the program starts a second loop, and
// ends it when they are gone. With one CPU the same load is left to one loop.
func TestLoopsFollowTheLoad(t *testing.T) {
	two, load := startUnderLoad(t, "GOMAXPROCS=2")
	until(t, "a second loop runs", func() bool { return two.count(t, "loops") == 2 })
	enough := two.count(t, "spliced")
	load.end()
	until(t, "the second loop has ended", func() bool { return two.count(t, "loops") == 1 })

	one, load := startUnderLoad(t, "GOMAXPROCS=1")
	until(t, "much more has been carried", func() bool { return one.count(t, "spliced") > 4*enough })
	if loops := one.count(t, "loops"); loops != 1 {
		t.Errorf("with one CPU there are %d loops", loops)
	}
	load.end()
}

// load is some connections that stream.
type load struct {
	conns []*net.TCPConn
	ended sync.WaitGroup
}

func startUnderLoad(t *testing.T, environment string) (*process, *load) {
	t.Helper()
	backend := rig.Serve(t, rig.Listen(t, ours()), rig.Pour)
	frontend := freePort(t, "tcp", ours())
	args := arguments("tcp", frontend, backend, "-engine", "splice", "-splice", "always")
	p := run{args: args, env: []string{environment}}.serve(t)
	l := new(load)
	for range 8 {
		conn := dial(t, "tcp", frontend).(*net.TCPConn)
		l.conns = append(l.conns, conn)
		l.ended.Go(func() { rig.Drain(conn) })
	}
	return p, l
}

func (l *load) end() {
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.ended.Wait()
}
