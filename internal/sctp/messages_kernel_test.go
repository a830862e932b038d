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
	"unsafe"

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
	p.must("SO_SNDBUF", unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*size))
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

// TestMemoryOfPort: while the backend does not read, the port holds what it may of large messages, and one message more, and
// their clients wait. All arrive when it reads.
func TestMemoryOfPort(t *testing.T) {
	const clients, each, budget, size = 3, 6, firstRoom, 2*firstRoom - minRoom
	backend, addr := listen(t, "127.0.0.1", 10)
	backend.must("SO_RCVBUF", unix.SetsockoptInt(backend.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size))
	relay := startRelay(t, "127.0.0.1", addr, Options{Memory: budget})
	var work sync.WaitGroup
	var servers [clients]*peer
	for i := range servers {
		var client *peer
		client, servers[i] = relay.open(t, backend)
		work.Go(func() {
			for range each { // the buffers behind the relay do not take all of them
				if err := client.trySend(newParcel(size, 3), true); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	eventually(t, func() bool { return relay.memory.beyond.Load() && relay.memory.starved.Load() != 0 },
		func() string { return "the memory was not used up" })
	if held := relay.memory.held.Load(); held > 2*budget {
		t.Errorf("the port holds %d bytes; want %d and a message at most", held, budget)
	}
	for _, server := range servers {
		work.Go(func() {
			for range each {
				if m, err := server.tryReceive(); err != nil || len(m.Data) != size || m.Stream != 3 {
					t.Errorf("received %v, %v", m, err)
				}
			}
		})
	}
	work.Wait()
	relay.expectStats(t, Stats{Accepted: clients, Active: clients, MessagesIn: clients * each, BytesIn: clients * each * size})
	if held := relay.memory.held.Load(); held != 0 {
		t.Errorf("%d bytes are held of messages that have left", held)
	}
}

// TestMemoryOfStalledReceiver: a receiver that takes nothing does not keep for ever the memory that others wait for.
func TestMemoryOfStalledReceiver(t *testing.T) {
	const size = 2*firstRoom - minRoom
	hasty := defaultPatience
	hasty.stall, hasty.check = 500*time.Millisecond, 50*time.Millisecond
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{Memory: 1, patience: hasty})
	stalled, _ := relay.open(t, backend)
	client, server := relay.open(t, backend)
	sendUntilFull(stalled, size)
	if !relay.memory.beyond.Load() {
		t.Fatal("the memory was not used up")
	}
	m := newParcel(size, 3)
	go func() { _ = client.trySend(m, true) }()
	server.expect(m)
	relay.expectReport(t, "relay", unix.ENOBUFS)
	expectReset(t, stalled)
}

// TestMessageWithoutEnd: what has come of a message whose end does not come is not kept for ever.
func TestMessageWithoutEnd(t *testing.T) {
	hasty := defaultPatience
	hasty.message, hasty.check, hasty.flush = 200*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{patience: hasty})
	client, server := relay.open(t, backend)
	client.must("send", client.trySend(newParcel(maxMessage, 3), false)) // the kernel gives pieces of what is above its window
	eventually(t, func() bool { return relay.memory.held.Load() > 0 }, func() string { return "no piece has come" })
	client.deafen() // it is not told that it may send more
	server.expectEnd(unix.ECONNRESET)
	relay.expectReport(t, "relay", os.ErrDeadlineExceeded)
	if held := relay.memory.held.Load(); held != 0 {
		t.Errorf("%d bytes are held of a message that was given up", held)
	}
}

// TestBundling: small messages that come together share packets.
func TestBundling(t *testing.T) {
	const count = batchDepth
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	client, server := relay.open(t, backend)
	goOn := relay.standStill(t)
	for range count {
		client.send(parcel{Data: make([]byte, 50)})
	}
	before := server.packets()
	goOn()
	for range count {
		server.receive()
	}
	// 16 of them, of 68 bytes with the headers of their chunks, fill a packet of 1500. The last goes by itself.
	if got := server.packets() - before; got > count/8 {
		t.Errorf("%d messages came in %d packets; want %d at most", count, got, count/8)
	}
}

// packets is how many packets with data have come.
func (p *peer) packets() uint64 {
	p.t.Helper()
	const getAssocStats = 112
	var stats struct { // struct sctp_assoc_stats
		assoc                                                           int32
		_                                                               int32
		_                                                               [128]byte
		maxRTO, sacksIn, sacksOut, packetsOut, packetsIn, retransmitted uint64
		_                                                               [9]uint64
	}
	size := uint32(unsafe.Sizeof(stats))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(p.fd), unix.IPPROTO_SCTP, getAssocStats,
		uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		p.t.Fatalf("SCTP_GET_ASSOC_STATS: %v", errno)
	}
	return stats.packetsIn - stats.sacksIn
}

// TestManyAtOnce has 100 associations open at once, which exchange messages and then idle: no thread waits.
func TestManyAtOnce(t *testing.T) {
	const count = 100
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	before := threads(t) // Go keeps those of earlier tests

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
	if n := threads(t) - before; n > 30 {
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
