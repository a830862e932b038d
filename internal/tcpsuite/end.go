package tcpsuite

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
)

const lateReply = 4 << 20

// halfCloseByClient ends the client's direction first; the reply comes after it, whole.
func halfCloseByClient(t *testing.T, e Engine) {
	request := bytes.Repeat([]byte("request"), 1000)
	p := start(t, e, func(conn *net.TCPConn) {
		got, err := io.ReadAll(conn)
		rig.Check(t, err)
		if !bytes.Equal(got, request) {
			t.Errorf("the backend read %d bytes, want %d", len(got), len(request))
		}
		_, err = conn.Write(make([]byte, lateReply))
		rig.Check(t, err)
	})
	conn := dial(t, p)
	_, err := conn.Write(request)
	rig.Check(t, err)
	rig.Check(t, conn.CloseWrite())
	n, err := io.Copy(io.Discard, conn)
	if err != nil || n != lateReply {
		t.Errorf("the late reply has %d bytes, %v; want %d", n, err, lateReply)
	}
	pairsEnd(t, p)
}

// halfCloseByBackend ends the backend's direction first; what the client sends after it arrives, whole.
func halfCloseByBackend(t *testing.T, e Engine) {
	received := make(chan int64, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		rig.Check(t, conn.CloseWrite())
		n, err := io.Copy(io.Discard, conn)
		rig.Check(t, err)
		received <- n
	})
	conn := dial(t, p)
	if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
		t.Fatalf("got %d bytes, %v; want the end", n, err)
	}
	_, err := conn.Write(make([]byte, lateReply))
	rig.Check(t, err)
	rig.Check(t, conn.CloseWrite())
	if n := <-received; n != lateReply {
		t.Errorf("the backend read %d bytes, want %d", n, lateReply)
	}
	pairsEnd(t, p)
}

// endWithoutBytes opens and closes.
func endWithoutBytes(t *testing.T, e Engine) {
	ended := make(chan error, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		n, err := io.Copy(io.Discard, conn)
		if n != 0 {
			t.Errorf("the backend read %d bytes", n)
		}
		ended <- err
	})
	rig.Check(t, dial(t, p).Close())
	rig.Check(t, <-ended)
	pairsEnd(t, p)
	if s := p.Stats(); s.Aborted != 0 {
		t.Errorf("%d pairs were aborted", s.Aborted)
	}
}

// resetByClient sends a stream and resets: the backend reads every byte that was delivered, and then the reset.
func resetByClient(t *testing.T, e Engine) {
	type end struct {
		n   int64
		err error
	}
	ended, read := make(chan end, 1), make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		<-read // until then the bytes wait in the proxy and in sockets
		n, err := io.Copy(io.Discard, conn)
		ended <- end{n, err}
	})
	conn := dial(t, p)
	const size = 64 << 10
	_, err := conn.Write(make([]byte, size))
	rig.Check(t, err)
	counted(t, p, size)
	reset(t, conn)
	close(read)
	if got := <-ended; got.n != size || !isReset(got.err) {
		t.Errorf("the backend read %d bytes and %v, want %d and a reset", got.n, got.err, size)
	}
	pairsEnd(t, p)
	if s := p.Stats(); s.Aborted != 1 {
		t.Errorf("%d pairs were aborted, want 1", s.Aborted)
	}
}

// resetByBackend answers in part and resets: the client must not take what it has for the whole.
func resetByBackend(t *testing.T, e Engine) {
	const size = 1000
	delivered := make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := conn.Write(make([]byte, size))
		rig.Check(t, err)
		<-delivered
		rig.Check(t, conn.SetLinger(0))
	})
	conn := dial(t, p)
	_, err := io.ReadFull(conn, make([]byte, size))
	rig.Check(t, err)
	close(delivered)
	if n, err := io.Copy(io.Discard, conn); n != 0 || !isReset(err) {
		t.Errorf("the client read %d bytes and %v, want a reset", n, err)
	}
	pairsEnd(t, p)
}

// resetWhileSilent resets the client's connection while the backend neither reads nor writes: the pair must not
// stay in CLOSE_WAIT.
func resetWhileSilent(t *testing.T, e Engine) {
	silent, ended := make(chan struct{}), make(chan error, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		<-silent
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	})
	conn := dial(t, p)
	rig.Until(t, "the pair exists", func() bool { return p.Stats().Active == 1 })
	reset(t, conn)
	pairsEnd(t, p)
	close(silent)
	if err := <-ended; !isReset(err) {
		t.Errorf("the backend read %v, want a reset", err)
	}
}

// resetAfterHalfClose: the client has ended its direction in order and then goes away while the backend sends.
func resetAfterHalfClose(t *testing.T, e Engine) {
	sending := make(chan error, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := io.Copy(io.Discard, conn)
		rig.Check(t, err)
		for chunk := make([]byte, 64<<10); err == nil; {
			_, err = conn.Write(chunk)
		}
		sending <- err
	})
	conn := dial(t, p)
	rig.Check(t, conn.CloseWrite())
	_, err := io.ReadFull(conn, make([]byte, 100<<10))
	rig.Check(t, err)
	rig.Check(t, conn.Close()) // with bytes unread: its kernel resets
	if err := <-sending; !isReset(err) {
		t.Errorf("the backend's write ended with %v, want a reset", err)
	}
	pairsEnd(t, p)
}

// ordinaryCloseIsNoReset closes in order, thousands of times, with bytes in flight at the end.
func ordinaryCloseIsNoReset(t *testing.T, e Engine) {
	const clients, rounds = 8, 300
	sizes := []int{0, 1, 1000, 40_000, 300_000}
	p := start(t, e, func(conn *net.TCPConn) {
		request, err := io.ReadAll(conn)
		rig.Check(t, err)
		_, err = conn.Write(make([]byte, len(request)))
		rig.Check(t, err)
	})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for i := range rounds {
				size := sizes[i%len(sizes)]
				if n, err := request(p.Addr, size); err != nil || n != int64(size) {
					t.Errorf("round %d: got %d bytes, %v; want %d", i, n, err, size)
					return
				}
			}
		})
	}
	all.Wait()
	pairsEnd(t, p)
	if s := p.Stats(); s.Aborted != 0 || s.Accepted != clients*rounds {
		t.Errorf("accepted %d and aborted %d, want %d and 0", s.Accepted, s.Aborted, clients*rounds)
	}
}

// request sends size bytes, ends its direction, and reads the answer to its end.
func request(to netip.AddrPort, size int) (int64, error) {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return 0, err
	}
	n, err := func() (int64, error) {
		if err := conn.SetDeadline(time.Now().Add(rig.Timeout)); err != nil {
			return 0, err
		}
		if _, err := conn.Write(make([]byte, size)); err != nil {
			return 0, err
		}
		if err := conn.CloseWrite(); err != nil {
			return 0, err
		}
		return io.Copy(io.Discard, conn)
	}()
	return n, errors.Join(err, conn.Close())
}

// closeEndsConnections closes the engine under live connections.
func closeEndsConnections(t *testing.T, e Engine) {
	p := start(t, e, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }) // ends any way
	conns := make([]*net.TCPConn, 10)
	for i := range conns {
		conns[i] = dial(t, p)
	}
	rig.Until(t, "the pairs exist", func() bool { return p.Stats().Active == uint64(len(conns)) })
	p.Close()
	for _, conn := range conns {
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("got %d bytes, %v; want the end", n, err)
		}
	}
	if s := p.Stats(); s.Active != 0 {
		t.Errorf("%d pairs are active after Close", s.Active)
	}
}
