package sctp

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
)

// TestObserve: the port tells of each association when it is accepted, connected and over: who has ended it and why, how
// long that took and how many bytes of messages it has carried.
func TestObserve(t *testing.T) {
	lose := func(s *socket, errno unix.Errno) {
		s.errs = append(s.errs, errno)
		s.notify(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_COMM_LOST))
		s.hup = true
	}
	for _, test := range []struct {
		name string
		end  func(w *world, p *pair, client, backend *socket)
		by   connection.Side
		why  connection.Reason
		err  error
	}{
		{"the client shuts down first", func(w *world, _ *pair, client, backend *socket) {
			client.shutdown()
			w.quiet()
			backend.shutdown()
		}, connection.Client, connection.Closed, nil},
		{"the backend shuts down first", func(w *world, _ *pair, client, backend *socket) {
			backend.shutdown()
			w.quiet()
			client.shutdown()
		}, connection.Backend, connection.Closed, nil},
		{"the client aborts", func(w *world, _ *pair, client, _ *socket) {
			lose(client, unix.ECONNRESET)
			w.quiet()
			w.pass(time.Minute)
		}, connection.Client, connection.Reset, nil},
		{"the backend vanishes", func(w *world, _ *pair, _, backend *socket) {
			lose(backend, unix.ETIMEDOUT)
			w.quiet()
			w.pass(time.Minute)
		}, connection.Backend, connection.Timeout, unix.ETIMEDOUT},
		{"the client takes no messages", func(w *world, _ *pair, client, backend *socket) {
			client.refuses = unix.EMSGSIZE
			backend.message(1, 0)
			w.quiet()
			w.pass(time.Minute)
		}, connection.Client, connection.Failed, unix.EMSGSIZE},
		{"the port ends", func(_ *world, p *pair, _, _ *socket) { p.abort() }, connection.Proxy, connection.Stopped, nil},
		{"the port ends while the pair fails", func(w *world, p *pair, client, _ *socket) {
			lose(client, unix.ECONNRESET)
			w.quiet()
			p.abort()
		}, connection.Client, connection.Reset, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told []connection.Connection
			w := newWorld(t, Options{Observe: func(c connection.Connection) { told = append(told, c) }})
			p, client := w.client()
			backend := w.sockets[p.backend.fd]
			w.now += time.Second
			backend.answer()
			w.quiet()
			client.message(3, 0)
			client.message(slotSize*100, 0) // larger than a batch
			backend.message(5, 0)
			w.quiet()
			w.now += time.Second
			test.end(w, p, client, backend)
			w.quiet()
			if len(told) != 3 {
				t.Fatalf("told of %+v, want three phases", told)
			}
			for i, c := range told {
				if c.Phase != connection.Phase(i) || c.Client != p.frontend.peer || c.Backend != p.backend.peer {
					t.Errorf("told of %+v, want phase %d of the pair", c, i)
				}
			}
			end := told[2]
			if told[0].Dial != 0 || told[1].Dial != time.Second || end.Dial != time.Second || end.Lasted < 2*time.Second {
				t.Errorf("the times of %+v are not those of the pair", told)
			}
			if end.FromClient != 3+slotSize*100 || end.FromBackend != 5 {
				t.Errorf("%d and %d bytes are told, want %d and 5", end.FromClient, end.FromBackend, 3+slotSize*100)
			}
			if end.By != test.by || end.Reason != test.why || !errors.Is(end.Err, test.err) {
				t.Errorf("the end is %+v; want %s by %s, %v", end.End, test.why, test.by, test.err)
			}
		})
	}
	t.Run("the backend does not answer", func(t *testing.T) {
		var told []connection.Connection
		w := newWorld(t, Options{Observe: func(c connection.Connection) { told = append(told, c) }})
		w.client()
		w.pass(DefaultDialTimeout)
		if len(told) != 2 || told[1].Phase != connection.Ended || told[1].By != connection.Backend ||
			told[1].Reason != connection.DialFailed || !errors.Is(told[1].Err, os.ErrDeadlineExceeded) ||
			told[1].Dial != 0 || told[1].Lasted != DefaultDialTimeout {
			t.Errorf("told of %+v, want a dial that has failed", told)
		}
	})
}

// TestClients: the associations that have moved the most bytes are told of, each with what it has moved either way.
func TestClients(t *testing.T) {
	w := newWorld(t, Options{})
	if all := w.port.Clients(10); len(all) > 0 {
		t.Errorf("without associations there are %v", all)
	}
	for i := range 3 {
		p, client, backend := w.pair()
		p.frontend.peer = netip.AddrPortFrom(p.frontend.peer.Addr(), uint16(1+i))
		client.message(10*(i+1), 0)
		backend.message(i+1, 0)
		w.quiet()
		w.now += time.Second
	}
	all := w.port.Clients(2)
	for i, in := range []uint64{30, 20} {
		if len(all) != 2 || all[i].BytesIn != in || all[i].BytesOut != in/10 || all[i].Age < time.Duration(i+1)*time.Second {
			t.Errorf("told of %+v, want the two that have moved the most", all)
			break
		}
	}
}
