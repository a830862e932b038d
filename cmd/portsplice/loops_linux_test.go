package main

import (
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestLoopsFollowTheLoad streams over several connections at once: with two CPUs the program starts a second loop, and
// ends it when they are gone. With one CPU the same load is left to one loop.
func TestLoopsFollowTheLoad(t *testing.T) {
	two, load := startUnderLoad(t, run{env: []string{"GOMAXPROCS=2"}})
	until(t, "a second loop runs", func() bool { return two.count(t, "loops") == 2 })
	enough := two.count(t, "spliced")
	load.end()
	until(t, "the second loop has ended", func() bool { return two.count(t, "loops") == 1 })

	staysAlone(t, run{env: []string{"GOMAXPROCS=1"}}, enough)
}

// TestLoopsOfTheWorker: it starts with one CPU and takes all that there are, unless somebody else has set their number.
func TestLoopsOfTheWorker(t *testing.T) {
	all := newLab(t)
	p, load := startUnderLoad(t, all.run(run{}))
	want := min(runtime.NumCPU(), 2)
	until(t, "loops run on two CPUs, if there are two", func() bool { return p.count(t, "loops") >= want })
	enough := p.count(t, "spliced")
	load.end()
	staysAlone(t, newLab(t).run(run{env: []string{"GOMAXPROCS=1"}}), enough)
}

// staysAlone has a process that has one CPU carry much more than was enough elsewhere for a second loop.
func staysAlone(t *testing.T, r run, enough int) {
	t.Helper()
	p, load := startUnderLoad(t, r)
	until(t, "much more has been carried", func() bool { return p.count(t, "spliced") > 4*enough })
	if loops := p.count(t, "loops"); loops != 1 {
		t.Errorf("with one CPU there are %d loops", loops)
	}
	load.end()
}

// load is some connections that stream.
type load struct {
	conns []*net.TCPConn
	ended sync.WaitGroup
}

func startUnderLoad(t *testing.T, r run) (*process, *load) {
	t.Helper()
	backend := rig.Serve(t, rig.Listen(t, ours()), rig.Pour)
	frontend := freePort(t, "tcp", ours())
	r.args = arguments("tcp", frontend, backend, "-engine", "splice", "-splice", "always")
	p := r.serve(t)
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
