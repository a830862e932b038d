//go:build linux && sctp_kernel

package sctp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// TestMessages sends messages of all sizes both ways, over each pair of families that dockerd asks for.
// Issue: docker-proxy cuts messages at 32 KiB, since its library ignores MSG_EOR.
func TestMessages(t *testing.T) {
	sizes := []int{1, 2, 3, 100, 1451, 1452, 1453, 4 << 10, 32 << 10, 32<<10 + 1, 64 << 10, 64<<10 + 1,
		200 << 10, 208<<10 + 1, 417 << 10, maxMessage}
	for _, test := range []struct{ name, frontend, backend string }{
		{"v4 to v4", "127.0.0.1", "127.0.0.1"},
		{"v6 to v4", "::1", "127.0.0.1"},
		{"v4 to v6", "127.0.0.1", "::1"},
		{"v6 to v6", "::1", "::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend, addr := listen(t, test.backend, 10)
			relay := startRelay(t, test.frontend, addr, Options{})
			client, server := relay.open(t, backend)
			var total uint64
			for i, size := range sizes {
				total += uint64(size)
				for _, way := range []struct{ from, to *peer }{{client, server}, {server, client}} {
					want := newParcel(size, uint16(i%10))
					sent := make(chan error, 1)
					go func() { sent <- way.from.trySend(want, true) }()
					way.to.expect(want)
					if err := <-sent; err != nil {
						t.Fatalf("send %v: %v", want, err)
					}
				}
			}
			n := uint64(len(sizes))
			relay.expectStats(t, Stats{Accepted: 1, Active: 1, MessagesIn: n, MessagesOut: n, BytesIn: total, BytesOut: total})
		})
	}
}

// TestOrder sends many messages both ways at once: each stream keeps its order, and nothing is lost.
func TestOrder(t *testing.T) {
	const count, streams = 2000, 7
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	client, server := relay.open(t, backend)

	send := func(p *peer) error {
		for i := range count {
			m := newParcel(1+i%3000, uint16(i%streams))
			m.Unordered, m.PPID = false, uint32(i)
			if err := p.trySend(m, true); err != nil {
				return fmt.Errorf("send %v: %w", m, err)
			}
		}
		return nil
	}
	receive := func(p *peer) error {
		next := [streams]uint32{}
		for i := range next {
			next[i] = uint32(i)
		}
		for range count {
			m, err := p.tryReceive()
			if err != nil {
				return err
			}
			if m.PPID != next[m.Stream] || len(m.Data) != 1+int(m.PPID)%3000 {
				return fmt.Errorf("received %v; want message %d there", m, next[m.Stream])
			}
			next[m.Stream] += streams
		}
		return nil
	}
	var work sync.WaitGroup
	for _, p := range []*peer{client, server} {
		for name, job := range map[string]func(*peer) error{"send": send, "receive": receive} {
			work.Go(func() {
				if err := job(p); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	work.Wait()
}

// TestStreams checks that the backend is offered what the client has, and that the last stream can be used.
func TestStreams(t *testing.T) {
	for _, streams := range []uint16{1, 10, 500, sctp.SCTP_MAX_STREAM} {
		t.Run(strconv.Itoa(int(streams)), func(t *testing.T) {
			backend, addr := listen(t, "127.0.0.1", sctp.SCTP_MAX_STREAM)
			relay := startRelay(t, "127.0.0.1", addr, Options{})
			client := dial(t, relay.addr, streams)
			server := backend.accept()
			back := min(streams, frontendStreams)
			if got := server.status(); got.Instreams != streams || got.Ostreams != back {
				t.Fatalf("the backend has %d streams in and %d out; want %d and %d", got.Instreams, got.Ostreams,
					streams, back)
			}
			there, answer := newParcel(9, streams-1), newParcel(9, back-1)
			client.send(there)
			server.expect(there)
			server.send(answer)
			client.expect(answer)
		})
	}
}

// TestBackPressure fills every buffer on the way to a backend that does not read: the client is stopped, what it
// sent arrives whole, and the relay holds one message of it at most.
func TestBackPressure(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	client, server := relay.open(t, backend)

	const size = 50 << 10
	sent := sendUntilFull(client, size)
	if passed := relay.Stats().MessagesIn; passed >= uint64(len(sent)) {
		t.Fatalf("the relay has passed on all %d messages: nothing was held back", passed)
	}
	for range sent {
		got := server.receive()
		i := indexOf(sent, got)
		if i < 0 {
			t.Fatalf("received %v, which was not sent", got)
		}
		sent[i] = parcel{}
	}
	n := uint64(len(sent))
	relay.expectStats(t, Stats{Accepted: 1, Active: 1, MessagesIn: n, BytesIn: n * size})
}

// sendUntilFull sends messages until the relay and every buffer before and behind it are full.
func sendUntilFull(p *peer, size int) []parcel {
	p.t.Helper()
	p.must("SO_SNDBUF", unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 2*size))
	var sent []parcel
	for {
		m := newParcel(size, uint16(len(sent)%10))
		err := p.trySend(m, false)
		switch {
		case err == nil:
			sent = append(sent, m)
		case !errors.Is(err, unix.EAGAIN):
			p.t.Fatal(err)
		case !p.poll(unix.POLLOUT, 300*time.Millisecond): // nothing moves for longer than a SACK is delayed
			return sent
		}
	}
}

func indexOf(sent []parcel, m parcel) int {
	for i := range sent {
		if sent[i].equal(m) {
			return i
		}
	}
	return -1
}

// TestManyAtOnce has 100 associations open at once, which exchange messages and then idle: no thread waits.
func TestManyAtOnce(t *testing.T) {
	const count = 100
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})

	clients := make([]*peer, count)
	for i := range clients {
		clients[i] = dial(t, relay.addr, 10)
	}
	servers := make([]*peer, count)
	for i := range servers {
		servers[i] = backend.accept()
	}
	for i, client := range clients { // which server belongs to it, only the message tells
		hello := parcel{Data: []byte(strconv.Itoa(i)), Stream: uint16(i % 10)}
		client.send(hello)
	}
	for _, server := range servers {
		hello := server.receive()
		server.send(parcel{Data: append(hello.Data, " is answered"...), Stream: hello.Stream})
	}
	for i, client := range clients {
		client.expect(parcel{Data: []byte(strconv.Itoa(i) + " is answered"), Stream: uint16(i % 10)})
	}
	relay.expectStats(t, Stats{Accepted: count, Active: count, MessagesIn: count, MessagesOut: count,
		BytesIn: 10 + 90*2, BytesOut: 10 + 90*2 + count*uint64(len(" is answered"))})
	if n := threads(t); n > 30 {
		t.Errorf("%d threads for %d idle associations", n, count)
	}

	for _, client := range clients {
		client.close()
	}
	for _, server := range servers {
		server.expectEnd(io.EOF)
	}
	expectIdle(t, relay)
}

func threads(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(status, []byte("Threads:\t"))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	n, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
