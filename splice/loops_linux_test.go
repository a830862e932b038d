package splice_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/splice"
)

// TestLoopsComeAndGo starts and ends loops while connections carry messages and streams: they move from loop to loop,
// with what their pumps hold, and nothing is lost.
func TestLoopsComeAndGo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const connections, changes = 40, 15
	e := newEngine(t, splice.Options{})
	listener, addr := rig.Bind(t, rig.Loopback)
	_, err := e.Add(listener, greeter(t, "hello"))
	rig.Must(t, err)
	e.Group().Hold()
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for i := range connections {
		size := 64
		if i%4 == 0 {
			size = 1 << 20
		}
		conn := greeted(t, addr, "hello")
		traffic.Go(func() {
			defer func() { _ = conn.Close() }()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := rig.Echoed(conn, bytes.Repeat([]byte{byte(i), byte(n)}, size/2)); err != nil {
					t.Errorf("connection %d, message %d: %v", i, n, err)
					return
				}
			}
		})
	}
	for range changes {
		first := e.Group().First()
		for range 2 {
			other := e.Group().Grow()
			first.Do(func() { first.GiveAway(other) })
		}
		wantLoops(t, e, 3)
		rig.Check(t, greeted(t, addr, "hello").Close()) // new connections are served meanwhile
		e.Group().Shrink()
		e.Group().Shrink()
		rig.Until(t, "one loop is left", func() bool { return e.Stats().Loops == 1 })
	}
	close(stop)
	traffic.Wait()
	if s := e.Stats(); s.Aborted != 0 || s.Accepted != connections+changes {
		t.Errorf("%v; want %d accepted and none aborted", s, connections+changes)
	}
}

// TestOneStreamNeedsOneLoop watches an engine for ten seconds of a stream beside idle connections: it cannot be shared, and
// no loop comes or goes.
func TestOneStreamNeedsOneLoop(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const idle, watched = 20, 10 * time.Second
	e := newEngine(t, splice.Options{})
	_, addr := addPort(t, e, greeter(t, "hello"), splice.Options{})
	for range idle {
		greeted(t, addr, "hello")
	}
	conn := greeted(t, addr, "hello")
	chunk := make([]byte, 1<<20)
	for begin := time.Now(); time.Since(begin) < watched; {
		rig.Exchange(t, conn, chunk)
		if loops := e.Stats().Loops; loops != 1 {
			t.Fatalf("%d loops after %v, want 1", loops, time.Since(begin))
		}
	}
}

// TestManyStreamsShareLoops: several streams at a time have another loop started, which takes some of them over.
func TestManyStreamsShareLoops(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	e := newEngine(t, splice.Options{})
	_, addr := addPort(t, e, greeter(t, "hello"), splice.Options{})
	var traffic sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		conn := greeted(t, addr, "hello")
		traffic.Go(func() {
			for chunk := make([]byte, 1<<20); ; {
				select {
				case <-stop:
					return
				default:
				}
				if err := rig.Echoed(conn, chunk); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	rig.Until(t, "there are two loops", func() bool { return e.Stats().Loops == 2 })
	rig.Until(t, "both carry connections", func() bool { return e.LoopsInUse() == 2 })
	close(stop)
	traffic.Wait()
	rig.Until(t, "one loop is left, with all connections", func() bool { return e.Stats().Loops == 1 && e.LoopsInUse() == 1 })
}

func wantLoops(t *testing.T, e *splice.Engine, want uint64) {
	t.Helper()
	if got := e.Stats().Loops; got != want {
		t.Errorf("%d loops, want %d", got, want)
	}
}
