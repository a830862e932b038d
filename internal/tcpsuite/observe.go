package tcpsuite

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/rig"
)

// watcher collects what an engine tells of connections.
type watcher struct {
	mu  sync.Mutex
	all []connection.Connection
}

func (w *watcher) add(c connection.Connection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, c)
}

// one waits until one connection has ended, checks that it was told of in order, and gives its end.
func (w *watcher) one(t *testing.T, backend netip.AddrPort) (end connection.Connection) {
	t.Helper()
	end = w.ended(t)
	all := w.all
	phases := []connection.Phase{connection.Accepted, connection.Connected, connection.Ended}
	if end.Reason == connection.DialFailed {
		phases = []connection.Phase{connection.Accepted, connection.Ended}
	}
	if len(all) != len(phases) {
		t.Fatalf("told of %+v, want the phases %v", all, phases)
	}
	for i, c := range all {
		if c.Phase != phases[i] || c.Client != all[0].Client || !c.Client.Addr().IsLoopback() || c.Backend != backend ||
			c.Dial < 0 || c.Lasted < c.Dial || c.Dial > 0 && c.Phase == connection.Accepted {
			t.Errorf("told of %+v; want phase %d of one connection to %v, with times that go on", c, phases[i], backend)
		}
	}
	return end
}

// ended waits until a connection has ended, and gives its end.
func (w *watcher) ended(t *testing.T) (end connection.Connection) {
	t.Helper()
	rig.Until(t, "a connection has ended", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.all) > 0 {
			end = w.all[len(w.all)-1]
		}
		return end.Phase == connection.Ended
	})
	return end
}

// whoEndedAndWhy: the engine tells who has ended a connection and why, and to the byte what it has carried.
func whoEndedAndWhy(t *testing.T, e Engine) {
	const hello, stream = len("hello"), 8 << 20
	readAll := func(t *testing.T, conn *net.TCPConn, want int64) {
		if n, err := io.Copy(io.Discard, conn); n != want || err != nil {
			t.Errorf("%d bytes came, %v; want %d", n, err, want)
		}
	}
	write := func(t *testing.T, conn *net.TCPConn, n int) {
		_, err := conn.Write(make([]byte, n))
		rig.Check(t, errors.Join(err, conn.CloseWrite()))
	}
	for _, test := range []struct {
		name                    string
		serve, client           func(*testing.T, *net.TCPConn)
		by                      connection.Side
		reason                  connection.Reason
		fromClient, fromBackend uint64
	}{
		{
			"the client closes",
			func(t *testing.T, conn *net.TCPConn) { readAll(t, conn, 3); write(t, conn, 5) },
			func(t *testing.T, conn *net.TCPConn) { write(t, conn, 3); readAll(t, conn, 5) },
			connection.Client, connection.Closed, 3, 5,
		}, {
			"the backend closes, after a stream",
			func(t *testing.T, conn *net.TCPConn) { write(t, conn, stream); readAll(t, conn, 3) },
			func(t *testing.T, conn *net.TCPConn) { readAll(t, conn, stream); write(t, conn, 3) },
			connection.Backend, connection.Closed, 3, stream,
		}, {
			"the client closes, after a stream",
			func(t *testing.T, conn *net.TCPConn) { readAll(t, conn, stream) },
			func(t *testing.T, conn *net.TCPConn) { write(t, conn, stream); readAll(t, conn, 0) },
			connection.Client, connection.Closed, stream, 0,
		}, {
			"the client resets",
			func(_ *testing.T, conn *net.TCPConn) { rig.Echo(conn) },
			func(t *testing.T, conn *net.TCPConn) { rig.Exchange(t, conn, []byte("hello")); reset(t, conn) },
			connection.Client, connection.Reset, uint64(hello), uint64(hello),
		}, {
			"the backend resets",
			func(t *testing.T, conn *net.TCPConn) {
				b := make([]byte, hello)
				_, err := io.ReadFull(conn, b)
				rig.Check(t, err)
				_, err = conn.Write(b)
				rig.Check(t, err)
				_, err = conn.Read(b) // until the client has it
				rig.Check(t, err)
				reset(t, conn)
			},
			func(t *testing.T, conn *net.TCPConn) {
				rig.Exchange(t, conn, []byte("hello"))
				_, err := conn.Write(make([]byte, 1))
				rig.Check(t, err)
				if _, err := io.Copy(io.Discard, conn); !isReset(err) {
					t.Errorf("the client's stream ended with %v, want a reset", err)
				}
			},
			connection.Backend, connection.Reset, uint64(hello) + 1, uint64(hello),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told watcher
			backend := rig.Backend(t, func(conn *net.TCPConn) { test.serve(t, conn) })
			p := startWith(t, e, Options{Observe: told.add}, backend)
			conn := dial(t, p)
			client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			test.client(t, conn)
			end := told.one(t, backend)
			if end.By != test.by || end.Reason != test.reason || end.Err != nil || end.Client != client {
				t.Errorf("the end is %+v; want %s by %s, of %v", end, test.reason, test.by, client)
			}
			if end.FromClient != test.fromClient || end.FromBackend != test.fromBackend {
				t.Errorf("%d and %d bytes are told, want %d and %d", end.FromClient, end.FromBackend, test.fromClient, test.fromBackend)
			}
			if s := p.Stats(); test.fromClient+test.fromBackend > stream && e.Paths.Streams == Spliced && s.Spliced == 0 {
				t.Error("nothing was spliced") // and so counted by what copies alone
			}
		})
	}
	t.Run("the backend refuses", func(t *testing.T) {
		var told watcher
		backend := closedPort(t)
		p := startWith(t, e, Options{Observe: told.add}, backend)
		rig.WantReset(t, p.Addr)
		if end := told.one(t, backend); end.By != connection.Backend || end.Reason != connection.DialFailed ||
			!errors.Is(end.Err, syscall.ECONNREFUSED) {
			t.Errorf("the end is %+v; want a dial that was refused", end)
		}
	})
	t.Run("the port ends", func(t *testing.T) {
		var told watcher
		backend := rig.Backend(t, rig.Echo)
		p := startWith(t, e, Options{Observe: told.add}, backend)
		rig.Exchange(t, dial(t, p), []byte("hello"))
		p.Close()
		if end := told.one(t, backend); end.By != connection.Proxy || end.Reason != connection.Stopped ||
			end.FromClient != uint64(hello) || end.FromBackend != uint64(hello) {
			t.Errorf("the end is %+v; want that it was stopped after %d bytes each way", end, hello)
		}
	})
}
