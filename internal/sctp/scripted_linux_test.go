package sctp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
)

// A world is a kernel and an event loop that tests script: sockets are what a test says, and epoll is level-triggered as
// the real one.
type world struct {
	t       *testing.T
	sockets map[int]*socket
	port    *Port
	ended   []error
	reports []error

	accepts     []error // what the next accepts answer; nobody waits when it is empty
	acceptCalls int
	dials       []error // what the next dials answer; they succeed when it is empty
	dialed      []*socket
	offered     []offer // what the dials offered, and what clients were
	refuse      error   // what epoll_ctl answers

	now     time.Duration
	watched map[int]*watch
	queue   []eventloop.Runner
	timers  map[*eventloop.Timer]*alarm
	events  int // that were told
	slices  int // that were counted as such
}

// A socket is one of a world's.
type socket struct {
	fd         int
	in         []arrival
	hup        bool
	errs       []unix.Errno // that wait in SO_ERROR
	errQueue   bool         // EPOLLERR that nobody can take
	room       int          // messages that it takes; below zero is without end
	lies       bool         // epoll says that it has room, whatever it takes
	refuses    unix.Errno   // what sending answers
	stands     bool         // as a dial
	streamsIn  uint16
	streamsOut uint16
	buffer     int
	bound      int // of the buffer; 0: none
	sent       []sent
	shut, dry  bool // shutdown and flush were called
	closed     bool
	aborted    bool
	receives   int
}

// An arrival is what one slot of a recvmmsg gets.
type arrival struct {
	data  []byte
	flags int32
	info  delivery
}

// sent is a message as it was sent.
type sent struct {
	size   int
	first  byte
	stream uint16
	more   bool // with MSG_MORE
}

// newWorld makes a world with a port that nobody listens for. Whoever is told of something may ask the port, in all tests.
func newWorld(t *testing.T, o Options) *world {
	w := &world{t: t, sockets: map[int]*socket{}, watched: map[int]*watch{}, timers: map[*eventloop.Timer]*alarm{}}
	asks := func(from string) {
		if !w.port.mu.TryLock() {
			t.Errorf("a lock is held while %s is called", from)
			return
		}
		w.port.mu.Unlock()
		_ = w.port.Stats()
	}
	o.Report = func(_ string, _, _ netip.AddrPort, err error) {
		asks("Report")
		w.reports = append(w.reports, err)
	}
	o.Ended = func(err error) {
		asks("Ended")
		w.ended = append(w.ended, err)
	}
	if observe := o.Observe; observe != nil {
		o.Observe = func(c connection.Connection) {
			asks("Observe")
			observe(c)
		}
	}
	w.port = newPort(nil, w, -1, netip.MustParseAddrPort("127.0.0.1:9"), o)
	return w
}

// open makes a socket with the lowest number that is free, as a kernel does.
func (w *world) open() *socket {
	fd := 3
	for w.sockets[fd] != nil {
		fd++
	}
	s := &socket{fd: fd, room: -1, streamsIn: 10, streamsOut: 10, buffer: bundleBuffer}
	w.sockets[fd] = s
	return s
}

// pair has the port accept a client, and the backend answer. It gives their sockets.
func (w *world) pair() (p *pair, client, backend *socket) {
	w.t.Helper()
	p, client = w.client()
	if p.state != dialing {
		w.t.Fatalf("the pair is in state %d; want dialing", p.state)
	}
	backend = w.sockets[p.backend.fd]
	backend.answer()
	w.turn()
	if p.state != relaying {
		w.t.Fatalf("the pair is in state %d; want relaying", p.state)
	}
	w.quiet()
	return p, client, backend
}

// client has the port accept a client.
func (w *world) client() (*pair, *socket) {
	client := w.open()
	p := w.port.add(w, client.fd, netip.MustParseAddrPort("198.18.0.1:1"))
	p.start()
	return p, client
}

func (s *socket) level() (events uint32) {
	if len(s.in) > 0 {
		events |= unix.EPOLLIN
	}
	if s.room != 0 || s.lies {
		events |= unix.EPOLLOUT
	}
	if s.hup {
		events |= unix.EPOLLHUP | unix.EPOLLIN
	}
	if len(s.errs) > 0 || s.errQueue {
		events |= unix.EPOLLERR
	}
	return events
}

// answer has a dial succeed.
func (s *socket) answer() { s.stands, s.room = true, -1 }

// message arrives on a socket.
func (s *socket) message(n int, stream uint16) {
	for n > slotSize {
		s.in = append(s.in, arrival{data: make([]byte, slotSize)})
		n -= slotSize
	}
	data := make([]byte, n)
	data[0] = byte(stream)
	s.in = append(s.in, arrival{data, unix.MSG_EOR, delivery{stream: stream}})
}

// piece arrives on a socket, of a message that goes on.
func (s *socket) piece(n int) { s.in = append(s.in, arrival{data: make([]byte, n)}) }

// notify has a notification arrive.
func (s *socket) notify(kind sctp.SCTPNotificationType, fields ...uint16) {
	s.in = append(s.in, arrival{data: notification(kind, fields...), flags: sctp.MSG_NOTIFICATION | unix.MSG_EOR})
}

// shutdown is the peer's.
func (s *socket) shutdown() { s.in = append(s.in, arrival{}) }

func (w *world) accept(int) (int, netip.AddrPort, error) {
	w.acceptCalls++
	if len(w.accepts) == 0 {
		return -1, netip.AddrPort{}, unix.EAGAIN
	}
	err := w.accepts[0]
	w.accepts = w.accepts[1:]
	return -1, netip.AddrPort{}, err
}

func (w *world) dial(_ netip.AddrPort, o offer) (int, error) {
	if len(w.dials) > 0 {
		err := w.dials[0]
		w.dials = w.dials[1:]
		if err != nil {
			return -1, err
		}
	}
	s := w.open()
	s.room = 0
	w.dialed = append(w.dialed, s)
	w.offered = append(w.offered, o)
	return s.fd, nil
}

func (w *world) connected(fd int) (bool, error) {
	return w.sockets[fd].stands, nil
}

func (w *world) streams(fd int) (in, out uint16, err error) {
	if s := w.sockets[fd]; !s.hup {
		return s.streamsIn, s.streamsOut, nil
	}
	return 0, 0, unix.EINVAL
}

func (w *world) offer(_ int, o offer) error {
	w.offered = append(w.offered, o)
	return nil
}

func (w *world) receive(fd int, heads []unix.Mmsghdr) (n int, errno unix.Errno) {
	s := w.sockets[fd]
	s.receives++
	if len(s.errs) > 0 {
		errno, s.errs = s.errs[0], s.errs[1:]
		return 0, errno
	}
	for n < len(heads) && len(s.in) > 0 {
		a := &s.in[0]
		h := &heads[n]
		room := unsafe.Slice(h.Hdr.Iov.Base, h.Hdr.Iov.Len)
		h.Len = uint32(copy(room, a.data))
		h.Hdr.Flags = a.flags
		h.Hdr.Controllen = 0
		if a.flags&unix.MSG_EOR != 0 && a.flags&sctp.MSG_NOTIFICATION == 0 {
			var ppid [4]byte
			info := controlMessage(unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDRCV, sndRcvInfo(a.info.stream, 0, ppid[:]))
			h.Hdr.SetControllen(copy(unsafe.Slice(h.Hdr.Control, controlSpace), info))
		}
		n++
		if len(a.data) == 0 { // the end is there for ever
			return n, 0
		}
		s.in = s.in[1:]
	}
	if n == 0 {
		return 0, unix.EAGAIN
	}
	return n, 0
}

func (w *world) send(fd int, heads []unix.Mmsghdr, flags int) (n int, errno unix.Errno) {
	s := w.sockets[fd]
	if s.refuses != 0 {
		return 0, s.refuses
	}
	for n < len(heads) && s.room != 0 {
		h := &heads[n]
		m := sent{more: flags&unix.MSG_MORE != 0}
		for i, piece := range unsafe.Slice(h.Hdr.Iov, h.Hdr.Iovlen) {
			if i == 0 {
				m.first = *piece.Base
			}
			m.size += int(piece.Len)
		}
		control := unsafe.Slice(h.Hdr.Control, h.Hdr.Controllen)
		m.stream = binary.NativeEndian.Uint16(control[unix.CmsgLen(0)+int(sndStream):])
		if m.stream >= s.streamsOut {
			break
		}
		s.sent = append(s.sent, m)
		h.Len = uint32(m.size)
		s.room--
		n++
	}
	switch {
	case n > 0:
		return n, 0
	case s.room == 0:
		return 0, unix.EAGAIN
	}
	return 0, unix.EINVAL
}

func (w *world) sendBuffer(fd, n int) int {
	s := w.sockets[fd]
	if s.bound == 0 || n <= s.bound {
		s.buffer = max(s.buffer, n)
	}
	return s.buffer
}

func (w *world) pendingError(fd int) (errno unix.Errno) {
	s := w.sockets[fd]
	if len(s.errs) > 0 {
		errno, s.errs = s.errs[0], s.errs[1:]
	}
	return errno
}

func (w *world) shutdown(fd int) { w.sockets[fd].shut = true }
func (w *world) flush(fd int)    { w.sockets[fd].dry = true }

func (w *world) close(fd int, abort bool) {
	s := w.sockets[fd]
	if s == nil {
		w.t.Fatalf("descriptor %d is closed, which is not open", fd)
	}
	if w.watched[fd] != nil {
		w.t.Errorf("descriptor %d is closed while events lead from it to a handler", fd)
	}
	s.closed, s.aborted = true, abort
	delete(w.sockets, fd)
}

// expectSent compares what was sent on a socket, by stream and size.
func (w *world) expectSent(s *socket, want ...string) {
	w.t.Helper()
	got := make([]string, len(s.sent))
	for i, m := range s.sent {
		got[i] = fmt.Sprintf("%d:%d", m.stream, m.size)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("sent %v; want %v", got, want)
	}
}
