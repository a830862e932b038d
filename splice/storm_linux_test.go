package splice_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/splice"
)

// half is what one side of a connection does.
type half struct {
	content []byte
	urgent  int  // a byte of urgent data goes after this many of the content; -1: none does
	reset   bool // ends by a reset, not in order
	patient bool // sends when the other side has ended
	buffers int  // size of the socket's, in bytes; 0: the kernel's choice
}

// plan gives what both sides of a connection do.
func plan(seed uint64) (client, backend half) {
	r := rand.New(rand.NewPCG(seed, 0))
	client, backend = planHalf(r), planHalf(r)
	switch r.IntN(4) { // nobody waits for the end of a side that is reset
	case 0:
		client.patient = !backend.reset
	case 1:
		backend.patient = !client.reset
	}
	return client, backend
}

func planHalf(r *rand.Rand) half {
	h := half{content: make([]byte, r.IntN(1<<r.IntN(21))), urgent: -1, reset: r.IntN(4) == 0}
	random, start := r.Uint64()|1, r.Uint64()
	for i := range h.content {
		h.content[i] = byte((start + uint64(i)*random) >> 56)
	}
	if r.IntN(4) == 0 {
		h.urgent = r.IntN(len(h.content) + 1)
	}
	if r.IntN(2) == 0 {
		h.buffers = 4096 << r.IntN(5)
	}
	return h
}

// TestStorm runs connections by random plans: sizes, ends in order and by resets, urgent data, small buffers and
// pauses, while loops are started and ended. Every byte is compared, every connection ends, no reset looks like an end
// in order to a side that did not reset, and no end in order is a reset.
func TestStorm(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, test := range []struct {
		name   string
		policy splice.Policy
	}{{"adaptive", splice.Adaptive}, {"always", splice.Always}, {"never", splice.Never}} {
		t.Run(test.name, func(t *testing.T) { storm(t, test.policy) })
	}
}

func storm(t *testing.T, policy splice.Policy) {
	const clients, rounds = 32, 12
	e := newEngine(t, splice.Options{Policy: policy})
	fd, addr := rig.Bind(t, rig.Loopback)
	smallSegments(t, fd)
	_, err := e.Add(fd, stormBackend(t))
	rig.Must(t, err)
	g := e.Group()
	g.Hold()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	over := make(chan struct{})
	var traffic sync.WaitGroup
	for i := range clients {
		traffic.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range rounds {
				rig.Check(t, stormClient(addr, r.Uint64()))
			}
		})
	}
	go func() { traffic.Wait(); close(over) }()
	for ended := false; !ended; {
		other := g.Grow()
		g.First().Do(func() { g.First().GiveAway(other) })
		other.Do(func() {})
		other.Do(func() { other.GiveAway(g.First()) })
		g.Shrink()
		select {
		case <-over:
			ended = true
		default:
		}
	}
	rig.Until(t, "all pairs end", func() bool { return e.Stats().Active == 0 })
	if s := e.Stats(); s.Accepted != clients*rounds {
		t.Errorf("%v; want %d accepted", s, clients*rounds)
	}
	rig.Until(t, "no pipe is kept that nobody needs", func() bool { return e.Stats().Pipes == 0 })
}

// stormBackend is told the plan's seed by the client.
func stormBackend(t *testing.T) netip.AddrPort {
	t.Helper()
	l := rig.Listen(t, rig.Loopback)
	fd := rig.Take(t, l)
	smallSegments(t, fd)
	rig.Must(t, unix.Close(fd))
	return rig.Serve(t, l, func(conn *net.TCPConn) {
		var first [8]byte
		if _, err := io.ReadFull(conn, first[:]); err != nil {
			return // the client has reset already
		}
		seed := binary.BigEndian.Uint64(first[:])
		client, backend := plan(seed)
		if err := backend.talk(conn, client, seed); err != nil {
			t.Errorf("backend, plan %d: %v", seed, err)
		}
	})
}

// smallSegments lets connections of a listener send more, and so smaller, pieces than the loopback interface carries,
// which exceed small buffers.
func smallSegments(t *testing.T, listener int) {
	t.Helper()
	rig.Must(t, unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400))
}

func stormClient(to netip.AddrPort, seed uint64) error {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // talk may have closed it
	if err := conn.SetDeadline(time.Now().Add(rig.Timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, seed)); err != nil {
		return err
	}
	client, backend := plan(seed)
	if err := client.talk(conn, backend, seed+1); err != nil {
		return fmt.Errorf("client, plan %d: %w", seed, err)
	}
	return nil
}

// talk plays h towards a side that plays other, and says what was wrong.
func (h half) talk(conn *net.TCPConn, other half, seed uint64) error {
	if h.buffers > 0 {
		if err := errors.Join(conn.SetReadBuffer(h.buffers), conn.SetWriteBuffer(h.buffers)); err != nil {
			return err
		}
	}
	ended, sent := make(chan struct{}), make(chan error, 1)
	go func() {
		if h.patient {
			<-ended
		}
		sent <- h.send(conn, rand.New(rand.NewPCG(seed, 1)))
	}()
	n, err := other.receive(conn, rand.New(rand.NewPCG(seed, 2)))
	close(ended)
	return h.judge(other, n, err, <-sent)
}

// judge says what is wrong with how a connection ended. The kernel tells a reset once, to the reader or the writer.
func (h half) judge(other half, n int, received, sent error) error {
	resets := h.reset || other.reset
	whole := n == len(other.content) && received == nil
	switch {
	case !resets && whole && sent == nil:
	case resets && (received == nil || stormReset(received)) && (sent == nil || stormReset(sent)) &&
		(h.reset || received != nil || sent != nil):
	default:
		return fmt.Errorf("%d of %d bytes received, %w; sent %d, %w; resets: own %v, other %v",
			n, len(other.content), received, len(h.content), sent, h.reset, other.reset)
	}
	return nil
}

func stormReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN) ||
		errors.Is(err, net.ErrClosed)
}

// send plays what the half sends, in pieces of all sizes.
func (h half) send(conn *net.TCPConn, r *rand.Rand) error {
	for at := 0; ; {
		if at == h.urgent {
			if err := sendUrgent(conn); err != nil {
				return err
			}
		}
		if at == len(h.content) {
			break
		}
		n := min(1+r.IntN(1<<r.IntN(18)), len(h.content)-at)
		if at < h.urgent {
			n = min(n, h.urgent-at)
		}
		if _, err := conn.Write(h.content[at : at+n]); err != nil {
			return err
		}
		at += n
		dawdle(r)
	}
	if h.reset {
		return errors.Join(conn.SetLinger(0), conn.Close())
	}
	return conn.CloseWrite()
}

// receive reads what a side sends, in pieces of all sizes, to its end.
func (h half) receive(conn *net.TCPConn, r *rand.Rand) (at int, err error) {
	for b := make([]byte, 128<<10); ; {
		n, err := conn.Read(b[:1+r.IntN(1<<r.IntN(18))])
		if at+n > len(h.content) || !bytes.Equal(b[:n], h.content[at:at+n]) {
			return at, fmt.Errorf("wrong bytes after %d", at)
		}
		at += n
		switch {
		case errors.Is(err, io.EOF):
			return at, nil
		case err != nil:
			return at, err
		}
		dawdle(r)
	}
}

// dawdle lets others run, now and then.
func dawdle(r *rand.Rand) {
	if r.IntN(20) == 0 {
		for range r.IntN(500) {
			runtime.Gosched()
		}
	}
}

func sendUrgent(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), []byte{'!'}, unix.MSG_OOB|unix.MSG_NOSIGNAL, nil)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}
