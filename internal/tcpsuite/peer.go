package tcpsuite

import (
	"errors"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// backend serves each connection in a goroutine of its own and closes it then. Everything has ended when the
// test has.
func backend(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			must(t, conn.SetDeadline(time.Now().Add(timeout)))
			running.Go(func() {
				defer func() { _ = conn.Close() }() // serve may have closed it
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		must(t, l.Close())
		running.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// dial connects to the proxy.
func dial(t *testing.T, p Proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(p.Addr))
	if err != nil {
		t.Fatal(err)
	}
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// until waits for a condition that has no event.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(timeout); !condition(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// isReset says whether a connection ended by a reset, as a reader or writer sees it.
func isReset(err error) bool {
	// ENOTCONN is how a shutdown is told.
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}

// stream is a reproducible sequence of bytes, written in chunks of random size.
type stream struct {
	random *rand.Rand
	left   int
	sum    hash.Hash64
}

func newStream(seed uint64, size int) *stream {
	return &stream{random: rand.New(rand.NewPCG(seed, 1)), left: size, sum: fnv.New64a()}
}

// writeTo writes the whole stream to w, in chunks of 1 byte to 256 KiB.
func (s *stream) writeTo(w io.Writer) error {
	chunk := make([]byte, 256<<10)
	for s.left > 0 {
		// As many small chunks as large ones: the sizes are spread over the powers of two.
		n := min(1+s.random.IntN(1<<s.random.IntN(19)), s.left)
		for i := range chunk[:n] {
			chunk[i] = byte(s.random.Uint32())
		}
		_, _ = s.sum.Write(chunk[:n]) // a hash never fails
		if _, err := w.Write(chunk[:n]); err != nil {
			return err
		}
		s.left -= n
	}
	return nil
}

// digest reads r to its end.
func digest(r io.Reader) (sum uint64, size int64, err error) {
	h := fnv.New64a()
	size, err = io.Copy(h, r)
	return h.Sum64(), size, err
}
