package tcpsuite

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
)

// bytesIntactBothWays streams in both directions at once, in chunks of random sizes.
func bytesIntactBothWays(t *testing.T, e Engine) {
	const size = 16 << 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	type end struct {
		sum  uint64
		size int64
	}
	toBackend, sent := make(chan end, 1), make(chan uint64, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		var both sync.WaitGroup
		both.Go(func() {
			down := newStream(seed+1, size)
			rig.Check(t, down.writeTo(conn))
			rig.Check(t, conn.CloseWrite())
			sent <- down.sum.Sum64()
		})
		sum, n, err := digest(conn)
		rig.Check(t, err)
		toBackend <- end{sum, n}
		both.Wait()
	})
	conn := dial(t, p)
	up := newStream(seed, size)
	var both sync.WaitGroup
	both.Go(func() {
		rig.Check(t, up.writeTo(conn))
		rig.Check(t, conn.CloseWrite())
	})
	sum, n, err := digest(conn)
	rig.Check(t, err)
	both.Wait()
	if want := (end{<-sent, size}); (end{sum, n}) != want {
		t.Errorf("down: got %+v, want %+v", end{sum, n}, want)
	}
	if got, want := <-toBackend, (end{up.sum.Sum64(), size}); got != want {
		t.Errorf("up: got %+v, want %+v", got, want)
	}
	counted(t, p, 2*size)
}

// counted waits until the counters have size bytes, and gives them: a byte is counted after it was sent.
func counted(t *testing.T, p Proxy, size uint64) (s Stats) {
	t.Helper()
	rig.Until(t, fmt.Sprintf("%d bytes are counted", size), func() bool {
		s = p.Stats()
		return s.Spliced+s.Copied >= size
	})
	if s.Spliced+s.Copied != size {
		t.Errorf("the counters say %d + %d bytes, %d went through", s.Spliced, s.Copied, size)
	}
	return s
}

// bytesAreCountedEachWay: what clients send apart from what backends do.
func bytesAreCountedEachWay(t *testing.T, e Engine) {
	const up, down = 1000, 300_000
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := io.ReadFull(conn, make([]byte, up))
		rig.Check(t, err)
		_, err = conn.Write(make([]byte, down))
		rig.Check(t, err)
	})
	conn := dial(t, p)
	_, err := conn.Write(make([]byte, up))
	rig.Must(t, err)
	_, err = io.ReadFull(conn, make([]byte, down))
	rig.Must(t, err)
	rig.Until(t, "all bytes are counted", func() bool { s := p.Stats(); return s.BytesIn >= up && s.BytesOut >= down })
	if s := p.Stats(); s.BytesIn != up || s.BytesOut != down || s.Spliced+s.Copied != up+down {
		t.Errorf("counted %+v", s)
	}
}

// pathOfSmallMessages shows by the counters which path moved small messages.
func pathOfSmallMessages(t *testing.T, e Engine) {
	const rounds, size = 200, 64
	p := start(t, e, rig.Echo)
	conn := dial(t, p)
	for i := range rounds {
		rig.Exchange(t, conn, bytes.Repeat([]byte{byte(i)}, size))
	}
	s := counted(t, p, 2*rounds*size)
	if e.Paths.Small == Spliced && s.Copied != 0 {
		t.Errorf("%d bytes were copied", s.Copied)
	}
	if e.Paths.Small == Copied && s.Spliced != 0 {
		t.Errorf("%d bytes were spliced", s.Spliced)
	}
}

// pathOfStreams shows by the counters which path moved a bulk transfer.
func pathOfStreams(t *testing.T, e Engine) {
	const size = 64 << 20
	p := start(t, e, func(conn *net.TCPConn) {
		_, _ = conn.Write(make([]byte, size)) // a short write shows at the client
	})
	n, err := io.Copy(io.Discard, dial(t, p))
	if err != nil || n != size {
		t.Fatalf("got %d bytes, %v; want %d", n, err, size)
	}
	s := counted(t, p, size)
	t.Logf("spliced %d, copied %d", s.Spliced, s.Copied)
	if e.Paths.Streams == Spliced && s.Spliced < size/2 {
		t.Errorf("only %d of %d bytes were spliced", s.Spliced, size)
	}
	if e.Paths.Streams == Copied && s.Spliced != 0 {
		t.Errorf("%d bytes were spliced", s.Spliced)
	}
}

// slowReaderBoundsMemory lets a client read nothing: the backend's writes must come to a halt, and nothing may
// be lost when the client reads at last.
func slowReaderBoundsMemory(t *testing.T, e Engine) {
	const (
		size  = 256 << 20
		bound = 64 << 20 // far above what four socket buffers and a pipe hold
	)
	progress := make(chan int)
	p := start(t, e, func(conn *net.TCPConn) {
		chunk := make([]byte, 1<<20)
		for range size / len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				t.Error(err)
				break
			}
			progress <- len(chunk)
		}
		close(progress)
	})
	conn := dial(t, p)
	taken := stall(t, progress)
	if taken > bound {
		t.Errorf("%d MiB were taken from the backend while the client read nothing", taken>>20)
	}
	go func() {
		for range progress { // the backend goes on while the client reads
		}
	}()
	n, err := io.Copy(io.Discard, conn)
	if err != nil || n != size {
		t.Errorf("got %d bytes, %v; want %d", n, err, size)
	}
}

// writeOn writes until it fails, and says how far it has come. It closes progress at its end.
func writeOn(conn *net.TCPConn, progress chan<- int) {
	defer close(progress)
	for chunk := make([]byte, 1<<20); ; {
		n, err := conn.Write(chunk)
		if err != nil {
			return
		}
		progress <- n
	}
}

// stall adds up progress until there has been none for a while.
func stall(t *testing.T, progress <-chan int) (sum int) {
	t.Helper()
	const quiet = 500 * time.Millisecond
	for {
		select {
		case n, ok := <-progress:
			if !ok {
				t.Fatal("the writer never had to wait")
			}
			sum += n
		case <-time.After(quiet):
			return sum
		}
	}
}

// thousandConnections keeps 1,000 connections open at once, each with traffic of its own.
func thousandConnections(t *testing.T, e Engine) {
	const connections = 1000
	p := start(t, e, rig.Echo)
	conns := make([]*net.TCPConn, connections)
	for i := range conns {
		conns[i] = dial(t, p)
		rig.Exchange(t, conns[i], []byte{byte(i), byte(i >> 8)})
	}
	if s := p.Stats(); s.Active != connections {
		t.Errorf("%d pairs are active, want %d", s.Active, connections)
	}
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			for n := range 20 {
				message := bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(n)}, 1+i)
				if err := rig.Echoed(conn, message); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, conn := range conns {
		rig.Check(t, conn.Close())
	}
	pairsEnd(t, p)
}
