package splice_test

import (
	"bytes"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
			exchangeUntil(t, stop, conn, i, size)
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

// TestOneStreamNeedsOneLoop watches an engine for ten seconds of a stream beside idle connections: it has more to do than one
// loop can, but that cannot be shared, and no loop comes or goes. The bytes are copied, twice as often as by those who send and
// discard them, so that the loop is what they wait for, wherever the test runs.
func TestOneStreamNeedsOneLoop(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const idle, watched, saturated = 20, 10 * time.Second, 85 // percent: from there on another loop is started, if that helps
	e := newEngine(t, splice.Options{})
	_, addr := addPort(t, e, greeter(t, "hello"), splice.Options{})
	for range idle {
		greeted(t, addr, "hello")
	}
	_, addr = addPort(t, e, rig.Backend(t, rig.Drain), splice.Options{Policy: splice.Never})
	conn := rig.Dial(t, "tcp", addr).(*net.TCPConn)
	var stream sync.WaitGroup
	stream.Go(func() { rig.Pour(conn) })
	begin, busiest := time.Now(), int32(0)
	for sample := time.NewTicker(time.Millisecond); time.Since(begin) < watched; <-sample.C {
		if loops := e.Stats().Loops; loops != 1 {
			t.Errorf("%d loops after %v, want 1", loops, time.Since(begin))
			break
		}
		busiest = max(busiest, e.Group().First().Load())
	}
	if s := e.Stats(); busiest < saturated || s.Active != idle+1 {
		t.Errorf("%v, and the loop was busy for %d %% of its time at the most", s, busiest)
	}
	rig.Check(t, conn.Close())
	stream.Wait()
}

// TestManyStreamsShareLoops: several streams at a time have another loop started, which takes some of them over.
func TestManyStreamsShareLoops(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	e := newEngine(t, splice.Options{})
	_, addr := addPort(t, e, greeter(t, "hello"), splice.Options{})
	var traffic sync.WaitGroup
	stop := make(chan struct{})
	for i := range 8 {
		conn := greeted(t, addr, "hello")
		traffic.Go(func() {
			exchangeUntil(t, stop, conn, i, 1<<20)
		})
	}
	rig.Until(t, "there are two loops", func() bool { return e.Stats().Loops == 2 })
	rig.Until(t, "both carry connections", func() bool { return e.LoopsInUse() == 2 })
	close(stop)
	traffic.Wait()
	rig.Until(t, "one loop is left, with all connections", func() bool { return e.Stats().Loops == 1 && e.LoopsInUse() == 1 })
}

// exchangeUntil has a connection, which has a number, carry messages of a size, each of them another, and their echoes.
func exchangeUntil(t *testing.T, stop <-chan struct{}, conn net.Conn, number, size int) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		if err := rig.Echoed(conn, bytes.Repeat([]byte{byte(number), byte(n)}, size/2)); err != nil {
			t.Errorf("connection %d, message %d: %v", number, n, err)
			return
		}
	}
}

func wantLoops(t *testing.T, e *splice.Engine, want uint64) {
	t.Helper()
	if got := e.Stats().Loops; got != want {
		t.Errorf("%d loops, want %d", got, want)
	}
}

// TestActiveOnItsWay: a connection is active also while it is between two loops, or was accepted and is on none yet.
// Whoever waits for the last of a closed port would else not see it.
func TestActiveOnItsWay(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	e := newEngine(t, splice.Options{})
	e.Group().Hold()
	backend := rig.Serve(t, rig.Listen(t, rig.Loopback), rig.Echo)
	listener, addr := rig.Bind(t, rig.Loopback)
	rig.Must(t, unix.Listen(listener, 16))
	first, second := rig.Dial(t, "tcp", addr), rig.Dial(t, "tcp", addr) // they are accepted in one batch
	active := make(chan uint64, 2)
	e.AfterAccept(func() { active <- e.Stats().Active })
	_, err := e.Add(listener, backend)
	rig.Must(t, err)
	rig.Exchange(t, first, []byte("hello"))
	rig.Exchange(t, second, []byte("hello"))
	for want := range uint64(2) {
		if got := <-active; got != want {
			t.Errorf("%d connections were active when the next was accepted, want %d", got, want)
		}
	}

	other, arrive := e.Group().Grow(), make(chan struct{})
	other.Post(func() { <-arrive })
	from := e.Group().First()
	from.Do(func() { from.GiveAway(other) })
	rig.Until(t, "the connections are on no loop", func() bool { return e.LoopsInUse() == 0 })
	if got := e.Stats().Active; got != 2 {
		t.Errorf("%d connections are active on their way, want 2", got)
	}
	close(arrive)
	rig.Until(t, "they have arrived", func() bool { return e.LoopsInUse() == 1 })
	if got := e.Stats().Active; got != 2 {
		t.Errorf("%d connections are active, want 2", got)
	}
}
