package sctp

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	testrig "github.com/portsplice/portsplice/internal/rig"
)

// listening has the port listen, on a loop of its own, by a descriptor that never becomes ready.
func (w *world) listening(t *testing.T) {
	t.Helper()
	group, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(group.Close)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	w.port.group, w.port.listener = group, fd
	w.sockets[fd] = &socket{fd: fd}
	if w.port.handle, err = group.First().Listen(fd, unix.EPOLLIN, w.port); err != nil {
		t.Fatal(err)
	}
}

// TestAcceptErrors: an error of one client is followed by the next; a want of something has the listener rest; a socket
// that listens no longer is the end of the listener, with a reason, and not a reason to try for ever.
func TestAcceptErrors(t *testing.T) {
	const next, rest, end = "next", "rest", "end"
	for errno, want := range map[unix.Errno]string{
		unix.ECONNABORTED: next, unix.EPROTO: next,
		unix.EMFILE: rest, unix.ENFILE: rest, unix.ENOMEM: rest, unix.ENOBUFS: rest, unix.EPERM: rest, unix.EIO: rest,
		unix.EINVAL: end, unix.EBADF: end, unix.EOPNOTSUPP: end, unix.ENOTSOCK: end, unix.ENOSYS: end,
	} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			w := newWorld(t, Options{})
			w.listening(t)
			listener := w.sockets[w.port.listener]
			w.accepts = []error{errno}
			first := w.port.group.First()
			first.Do(func() {
				w.port.Ready(unix.EPOLLIN)
				got := next
				switch {
				case w.port.closed:
					got = end
				case w.port.resume.Set():
					got = rest
				}
				if got != want {
					t.Errorf("got %s; want %s", got, want)
				}
				if asked := w.acceptCalls; (asked == 2) != (want == next) {
					t.Errorf("accept was called %d times", asked)
				}
			})
			if len(w.reports) != 1 || !errors.Is(w.reports[0], errno) || w.port.Stats().AcceptErrors != 1 {
				t.Errorf("reported %v, counted %d; want %v", w.reports, w.port.Stats().AcceptErrors, errno)
			}
			if told := errors.Is(errors.Join(w.ended...), errno); told != (want == end) || len(w.ended) > 1 {
				t.Errorf("told of the listener's end: %v", w.ended)
			}
			w.port.Abort()
			if !listener.closed {
				t.Error("the listener is open")
			}
		})
	}
}

// TestPortsNeedNoTurn: a port is read, changed and closed while its loop takes no turn, and so is one aborted that has no pairs.
func TestPortsNeedNoTurn(t *testing.T) {
	w := newWorld(t, Options{})
	w.listening(t)
	listener, stand := w.sockets[w.port.listener], make(chan struct{})
	defer close(stand)
	w.port.group.First().Post(func() { <-stand })
	over := make(chan Stats, 1)
	go func() {
		w.port.SetBackend(netip.MustParseAddrPort("127.0.0.1:10"))
		w.port.SetOptions(Options{})
		w.port.Close()
		w.port.Abort()
		over <- w.port.Stats()
	}()
	testrig.Until(t, "the port has ended", func() bool { return len(over) > 0 })
	if s := <-over; s != (Stats{}) || !listener.closed {
		t.Errorf("%v; the listener is closed: %v", s, listener.closed)
	}
}

// TestAcceptBatch: of many clients who wait, a listener takes a batch in a turn, and no more: then it is the others' turn.
func TestAcceptBatch(t *testing.T) {
	const waiting = 2*maxAccepts + 1
	w := newWorld(t, Options{})
	w.listening(t)
	for range waiting {
		w.accepts = append(w.accepts, unix.ECONNABORTED) // each has gone by then
	}
	for turn, want := range []int{maxAccepts, 2 * maxAccepts, waiting + 1} { // one call finds nobody
		w.port.group.First().Do(func() { w.port.Ready(unix.EPOLLIN) })
		if w.acceptCalls != want {
			t.Errorf("accept was called %d times after %d turns, want %d", w.acceptCalls, turn+1, want)
		}
	}
	w.port.Abort()
}

// TestRestGrows: the listener rests longer each time, and accepts at once when it has rested.
func TestRestGrows(t *testing.T) {
	w := newWorld(t, Options{})
	w.listening(t)
	first := w.port.group.First()
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		w.accepts = []error{unix.EMFILE}
		first.Do(func() {
			if w.port.Ready(unix.EPOLLIN); testrig.Watched(t, w.port.listener)&unix.EPOLLIN != 0 {
				t.Error("epoll looks at the listener while it rests: it spins")
			}
		})
		if got := w.port.pause; got != want*time.Millisecond {
			t.Fatalf("the next rest is of %v; want %v", got, want*time.Millisecond)
		}
	}
	w.port.Abort()
}

// TestAcceptForbidden: a port whose clients cannot be accepted for as long as a dial may take ends with the reason, and its
// clients are aborted; one that only lacks descriptors goes on.
func TestAcceptForbidden(t *testing.T) {
	for errno, ends := range map[unix.Errno]bool{unix.EPERM: true, unix.EACCES: true, unix.EMFILE: false} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			w := newWorld(t, Options{DialTimeout: time.Nanosecond})
			w.listening(t)
			for try := range 2 { // an early one of which is no reason yet
				if w.port.closed {
					t.Fatalf("the port ended after %d tries", try)
				}
				w.accepts = []error{errno}
				w.port.group.First().Do(func() {
					w.port.Ready(unix.EPOLLIN)
					w.port.failing -= time.Nanosecond // as time goes on
				})
			}
			if w.port.closed != ends {
				t.Errorf("ended: %t; want %t", w.port.closed, ends)
			}
			if told := errors.Is(errors.Join(w.ended...), errno); told != ends {
				t.Errorf("the port ended by %v, want %v", w.ended, errno)
			}
			w.port.Abort()
		})
	}
}

// TestItself: a port whose backend is the port itself is refused.
func TestItself(t *testing.T) {
	for _, test := range []struct {
		bound, backend string
		want           error
	}{
		{"127.0.0.1", "127.0.0.1", errSelf},
		{"0.0.0.0", "127.0.0.1", errSelf},
		{"0.0.0.0", "127.8.9.10", errSelf},
		{"::1", "::1", errSelf},
		{"::", "::1", errSelf},
		{"::", "127.0.0.1", nil}, // dockerd's sockets of IPv6 do not take IPv4
		{"127.0.0.1", "127.0.0.2", nil},
		{"0.0.0.0", "198.18.0.1", nil},
	} {
		t.Run(test.bound+" to "+test.backend, func(t *testing.T) {
			family, to, err := sockaddr(netip.AddrPortFrom(netip.MustParseAddr(test.bound), 0))
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // of TCP: it only has to have a name
			if err == nil {
				defer func() { _ = unix.Close(fd) }()
				err = unix.Bind(fd, to)
			}
			if err != nil {
				t.Fatal(err)
			}
			name, err := unix.Getsockname(fd)
			if err != nil {
				t.Fatal(err)
			}
			port := addrPort(name).Port()
			backend := netip.MustParseAddr(test.backend)
			if err := newPort(nil, linux{}, fd, netip.AddrPortFrom(backend, port), Options{}).notItself(); !errors.Is(err, test.want) {
				t.Errorf("got %v; want %v", err, test.want)
			}
			if err := newPort(nil, linux{}, fd, netip.AddrPortFrom(backend, port^1), Options{}).notItself(); err != nil {
				t.Errorf("another port: %v", err)
			}
		})
	}
}
