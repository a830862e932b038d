package tcpsuite

import (
	"errors"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// dial connects to the proxy.
func dial(t *testing.T, p Proxy) *net.TCPConn {
	t.Helper()
	return rig.Dial(t, "tcp", p.Addr).(*net.TCPConn)
}

// pairsEnd waits until no pair is left.
func pairsEnd(t *testing.T, p Proxy) {
	t.Helper()
	rig.Until(t, "all pairs end", func() bool { return p.Stats().Active == 0 })
}

// reset closes a connection so that its peer sees a reset.
func reset(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	rig.Check(t, conn.SetLinger(0))
	rig.Check(t, conn.Close())
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
