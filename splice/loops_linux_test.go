package splice_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/portsplice/portsplice/splice"
)

// TestLoopsComeAndGo starts and ends loops while connections carry messages and streams: they move from loop to loop,
// with what their pumps hold, and nothing is lost.
func TestLoopsComeAndGo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const connections, changes = 40, 15
	e := newEngine(t)
	listener, addr := bind(t)
	backend := greeter(t, "hello")
	if _, err := e.Add(listener, backend); err != nil {
		t.Fatal(err)
	}
	e.Hold()
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
				if err := echoed(conn, bytes.Repeat([]byte{byte(i), byte(n)}, size/2)); err != nil {
					t.Errorf("connection %d, message %d: %v", i, n, err)
					return
				}
			}
		})
	}
	for range changes {
		e.Grow()
		e.Grow()
		wantLoops(t, e, 3)
		if err := greeted(t, addr, "hello").Close(); err != nil { // new connections are served meanwhile
			t.Error(err)
		}
		e.Retire()
		e.Retire()
		wantLoops(t, e, 1)
	}
	close(stop)
	traffic.Wait()
	if s := e.Stats(); s.Aborted != 0 || s.Accepted != connections+changes {
		t.Errorf("%v; want %d accepted and none aborted", s, connections+changes)
	}
}

func wantLoops(t *testing.T, e *splice.Engine, want uint64) {
	t.Helper()
	if got := e.Stats().Loops; got != want {
		t.Errorf("%d loops, want %d", got, want)
	}
}

// echoed sends a message and expects it back; it is written and read at once, so that it may be of any size.
func echoed(conn net.Conn, message []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(message)
		sent <- err
	}()
	got := make([]byte, len(message))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	if !bytes.Equal(got, message) {
		return io.ErrUnexpectedEOF
	}
	return nil
}
