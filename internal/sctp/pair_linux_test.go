package sctp

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
)

// expectNothingHeld is for the end of a test.
func (w *world) expectNothingHeld() {
	w.t.Helper()
	if len(w.sockets) > 0 || len(w.watched) > 0 || len(w.timers) > 0 || len(w.queue) > 0 {
		w.t.Errorf("left over: %d sockets, %d watched, %d timers, %d in the queue",
			len(w.sockets), len(w.watched), len(w.timers), len(w.queue))
	}
	if n := len(w.port.pairs); n > 0 || w.port.Stats().Active != 0 {
		w.t.Errorf("%d pairs are left, %d active", n, w.port.Stats().Active)
	}
	if held := w.port.memory.held.Load(); held != 0 {
		w.t.Errorf("%d bytes of the port's memory are held", held)
	}
}

// TestShared: small messages that come together are sent with MSG_MORE, but for the last; larger ones are not.
func TestShared(t *testing.T) {
	for _, test := range []struct {
		name   string
		sizes  []int
		buffer int // at the most
		more   []bool
	}{
		{"one", []int{10}, bundleBuffer, []bool{false}},
		{"three", []int{10, bundleSize, 10}, bundleBuffer, []bool{true, true, false}},
		{"one of them larger", []int{10, bundleSize + 1, 10}, bundleBuffer, []bool{false, false, false}},
		{"a buffer that they may fill", []int{10, 10}, bundleBuffer - 1, []bool{false, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			_, client, backend := w.pair()
			backend.buffer, backend.bound = test.buffer, test.buffer
			for _, n := range test.sizes {
				client.message(n, 0)
			}
			w.quiet()
			var more []bool
			for _, m := range backend.sent {
				more = append(more, m.more)
			}
			if !slices.Equal(more, test.more) {
				t.Errorf("sent with MSG_MORE: %v; want %v", more, test.more)
			}
		})
	}
}

// TestBegunToShare: what was sent with MSG_MORE waits in the kernel for the next message. It does not stay there when the
// pair fails meanwhile: the rest of its batch goes, too, and the last without MSG_MORE.
func TestBegunToShare(t *testing.T) {
	w := newWorld(t, Options{})
	p, client, backend := w.pair()
	backend.room = 2
	for range 4 {
		client.message(10, 1)
	}
	w.quiet()
	w.expectSent(backend, "1:10", "1:10")
	p.fail(connection.Backend, unix.EIO)
	p.settle()
	w.quiet()
	backend.room = -1
	w.quiet()
	w.expectSent(backend, "1:10", "1:10", "1:10", "1:10")
	if backend.sent[3].more {
		t.Error("the last was sent with MSG_MORE")
	}
	client.message(10, 1) // what comes later is not forwarded
	w.quiet()
	w.expectSent(backend, "1:10", "1:10", "1:10", "1:10")
	client.notify(sctp.SCTP_SENDER_DRY_EVENT)
	backend.notify(sctp.SCTP_SENDER_DRY_EVENT)
	w.quiet()
	if got := w.port.Stats(); got.MessagesIn != 4 || got.Undelivered != 1 || got.Aborted != 1 {
		t.Errorf("got %v; want 4 messages in, 1 undelivered, 1 aborted", got)
	}
	w.expectNothingHeld()
}

// TestGivenUp: the pieces of a message that its sender has given up are not a part of the next, whether it was still in
// a batch or already in a buffer of its own.
func TestGivenUp(t *testing.T) {
	for _, pieces := range []int{1, batchDepth - 1, batchDepth, batchDepth + 1, 5 * batchDepth} {
		for where, looked := range map[string]bool{"in a batch": false, "in a buffer": true} {
			t.Run(fmt.Sprint(pieces, " ", where), func(t *testing.T) {
				w := newWorld(t, Options{})
				p, client, backend := w.pair()
				client.message(20, 1)
				for range pieces {
					client.piece(slotSize)
				}
				if looked {
					w.quiet()
				}
				client.notify(sctp.SCTP_PARTIAL_DELIVERY_EVENT)
				w.quiet()
				if held := w.port.memory.held.Load(); held != 0 || p.in.large != nil {
					t.Errorf("%d bytes are held of what was given up", held)
				}
				client.message(30, 2)
				client.message(slotSize+1, 3)
				w.quiet()
				w.expectSent(backend, "1:20", "2:30", fmt.Sprintf("3:%d", slotSize+1))
			})
		}
	}
}

// TestStreamsAreMapped: a stream that was not granted shares those that were, but for the first.
func TestStreamsAreMapped(t *testing.T) {
	for _, test := range []struct {
		streams uint16
		want    []uint16 // of 0, 1, 2, ...
	}{
		{1, []uint16{0, 0, 0, 0, 0, 0}},
		{2, []uint16{0, 1, 1, 1, 1, 1}},
		{3, []uint16{0, 1, 2, 1, 2, 1}},
		{5, []uint16{0, 1, 2, 3, 4, 1}},
		{9, []uint16{0, 1, 2, 3, 4, 5}},
		{0, []uint16{0, 1, 2, 3, 4, 5}}, // nothing is known
	} {
		l := leg{streams: test.streams}
		for s, want := range test.want {
			if got := l.stream(uint16(s)); got != want {
				t.Errorf("of %d streams: a message of stream %d goes on %d; want %d", test.streams, s, got, want)
			}
		}
		if got := l.stream(65535); test.streams > 0 && got >= test.streams {
			t.Errorf("of %d streams: a message of stream 65535 goes on %d", test.streams, got)
		}
	}
}

// TestLearnt: clients are offered what the backend takes and has, until it may be another one.
func TestLearnt(t *testing.T) {
	w := newWorld(t, Options{})
	last := func() offer { return w.offered[len(w.offered)-1] }
	begin := func() {
		p, _ := w.client()
		s := w.dialed[len(w.dialed)-1]
		s.streamsIn, s.streamsOut = 3, 5
		s.answer()
		w.quiet()
		if p.state != relaying {
			t.Fatal("the dial did not succeed")
		}
	}
	begin()
	if want := (offer{out: 3, in: 5}); last() != want {
		t.Errorf("clients are offered %v; want %v", last(), want)
	}
	count := len(w.offered)
	begin()
	if len(w.offered) != count+1 { // the dial's
		t.Error("clients were offered the same once more")
	}
	w.dials = []error{unix.ECONNREFUSED}
	w.client()
	if last() != everything {
		t.Errorf("clients are offered %v of a backend that is gone; want %v", last(), everything)
	}
}

// TestDialWaits: a dial for which there is no descriptor is tried again, until its time is over. Any other error aborts
// the client at once.
func TestDialWaits(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			w := newWorld(t, Options{DialTimeout: time.Second})
			w.dials = []error{errno, errno}
			p, _ := w.client()
			w.pass(minPause)
			w.pass(2 * minPause)
			if len(w.dialed) != 1 || p.state != dialing {
				t.Fatalf("%d dials, state %d; want one, dialing", len(w.dialed), p.state)
			}
			w.pass(time.Second)
			if len(w.reports) != 1 || !errors.Is(w.reports[0], os.ErrDeadlineExceeded) {
				t.Errorf("reported %v; want that the backend has not answered", w.reports)
			}
			w.expectNothingHeld()

			w.reports = nil
			w.dials = slices.Repeat([]error{errno}, 1000)
			_, client := w.client()
			for range 20 {
				w.pass(100 * time.Millisecond)
			}
			if len(w.reports) != 1 || !errors.Is(w.reports[0], errno) || !client.aborted {
				t.Errorf("reported %v, aborted %t; want %v", w.reports, client.aborted, errno)
			}
			w.expectNothingHeld()
		})
	}
	for _, errno := range []unix.Errno{unix.EAFNOSUPPORT, unix.EACCES, unix.EPERM, unix.ENOSYS, unix.ENETUNREACH} {
		t.Run(errno.Error(), func(t *testing.T) {
			w := newWorld(t, Options{})
			w.dials = []error{errno}
			_, client := w.client()
			if len(w.reports) != 1 || !errors.Is(w.reports[0], errno) || !client.aborted {
				t.Errorf("reported %v, aborted %t; want %v", w.reports, client.aborted, errno)
			}
			w.expectNothingHeld()
		})
	}
}

// TestRefusedByEpoll: a pair that cannot be watched is aborted, and that is said.
func TestRefusedByEpoll(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.ENOMEM} {
		t.Run(errno.Error(), func(t *testing.T) {
			w := newWorld(t, Options{})
			w.refuse = errno
			_, client := w.client()
			if len(w.reports) != 1 || !errors.Is(w.reports[0], errno) || !client.aborted {
				t.Errorf("while dialing: reported %v, aborted %t; want %v", w.reports, client.aborted, errno)
			}
			w.refuse = nil
			_, client, backend := w.pair()
			w.refuse = errno
			backend.room = 0
			client.message(10, 0)
			w.quiet()
			if len(w.reports) != 2 || !errors.Is(w.reports[1], errno) || !client.aborted || !backend.aborted {
				t.Errorf("while relaying: reported %v, aborted %t and %t; want %v", w.reports[1:], client.aborted,
					backend.aborted, errno)
			}
			w.expectNothingHeld()
		})
	}
}

// TestReuseOfDescriptors: the events that are left of a pair when it ends do not reach one that has its descriptors since.
func TestReuseOfDescriptors(t *testing.T) {
	w := newWorld(t, Options{})
	old, client, backend := w.pair()
	var fresh *pair
	var before int
	restart := readyFunc(func(uint32) { // what comes first in the batch
		old.abort()
		fresh, _ = w.client()
		before = w.events
	})
	trigger := &socket{fd: 0, in: []arrival{{}}, room: -1}
	w.sockets[0] = trigger
	w.watched[0] = &watch{handler: restart, events: unix.EPOLLIN | unix.EPOLLET, edge: true}
	client.message(10, 0)
	backend.message(10, 0)
	w.turn()
	if fresh.frontend.fd != client.fd || fresh.backend.fd != backend.fd {
		t.Fatalf("descriptors %d and %d; want %d and %d again", fresh.frontend.fd, fresh.backend.fd, client.fd, backend.fd)
	}
	if w.events != before {
		t.Errorf("%d events of the old pair were told", w.events-before)
	}
	fresh.abort()
	delete(w.sockets, 0)
	delete(w.watched, 0)
	w.expectNothingHeld()
}

// readyFunc is a handler.
type readyFunc func(events uint32)

func (f readyFunc) Ready(events uint32) { f(events) }

// TestReadBehindError: recvmmsg tells first why the association was lost, and then what came before.
func TestReadBehindError(t *testing.T) {
	w := newWorld(t, Options{})
	p, client, backend := w.pair()
	client.message(10, 1)
	client.notify(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_COMM_LOST))
	client.errs = []unix.Errno{unix.ETIMEDOUT}
	p.in.readable()
	p.settle()
	w.expectSent(backend, "1:10")
	if !errors.Is(p.cause, unix.ETIMEDOUT) {
		t.Errorf("the pair failed with %v; want ETIMEDOUT", p.cause)
	}
	p.abort()
	w.expectNothingHeld()
}

// TestLostBeforeAsked: of an association that was lost before the relay had asked to be told, nothing but EPOLLHUP says so.
func TestLostBeforeAsked(t *testing.T) {
	w := newWorld(t, Options{})
	p, client, backend := w.pair()
	client.message(10, 1)
	client.hup = true
	w.quiet()
	w.expectSent(backend, "1:10")
	if p.state != failing || !errors.Is(p.cause, unix.ECONNRESET) {
		t.Errorf("the pair is in state %d, %v; want failing, ECONNRESET", p.state, p.cause)
	}
	backend.notify(sctp.SCTP_SENDER_DRY_EVENT)
	w.quiet()
	w.expectNothingHeld()
}

// TestRestartOfClient: the client's socket goes to a pair of its own, and the old backend is aborted behind what it was sent.
func TestRestartOfClient(t *testing.T) {
	w := newWorld(t, Options{})
	p, client, backend := w.pair()
	client.message(10, 1)
	client.piece(100) // of a message whose sender is gone
	client.notify(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_RESTART))
	client.message(20, 2)
	w.quiet()
	w.expectSent(backend, "1:10")
	if !backend.dry || backend.closed || p.state != failing {
		t.Error("the old association to the backend is not flushed")
	}
	fresh := w.dialed[1]
	fresh.answer()
	w.quiet()
	w.expectSent(fresh, "2:20")
	backend.message(30, 3) // for nobody
	backend.notify(sctp.SCTP_SENDER_DRY_EVENT)
	w.quiet()
	if !backend.aborted || client.closed {
		t.Errorf("the old backend is aborted: %t, the client closed: %t; want true, false", backend.aborted, client.closed)
	}
	if len(client.sent) > 0 {
		t.Error("the client was sent what was for the one before")
	}
	if got := w.port.Stats(); got.Accepted != 2 || got.Active != 1 || got.Undelivered != 1 || len(w.reports) > 0 {
		t.Errorf("got %v, reported %v; want 2 accepted, 1 active, 1 undelivered, no report", got, w.reports)
	}
	for pair := range w.port.pairs {
		pair.abort()
	}
	w.expectNothingHeld()
}

// TestRestartWithoutBackend: what was read of a client that has begun anew is counted when it cannot be delivered.
func TestRestartWithoutBackend(t *testing.T) {
	w := newWorld(t, Options{})
	_, client, backend := w.pair()
	client.notify(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_RESTART))
	client.message(10, 1)
	client.message(slotSize+1, 1)
	client.notify(sctp.SCTP_PEER_ADDR_CHANGE, 1, 0)
	w.dials = []error{unix.ECONNREFUSED}
	w.quiet()
	backend.notify(sctp.SCTP_SENDER_DRY_EVENT)
	w.quiet()
	if got := w.port.Stats(); got.Undelivered != 2 || got.DialErrors != 1 || !client.aborted {
		t.Errorf("got %v, client aborted %t; want 2 undelivered, 1 dial error", got, client.aborted)
	}
	w.expectNothingHeld()
}
