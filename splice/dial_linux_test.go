package splice

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// portless is a kernel that finds no source port for a socket that is not bound, and has busy ports.
type portless struct {
	linux
	busy         *atomic.Int64 // connects from bound ports that fail, too
	bound, other *atomic.Int64 // calls of connect(2)
	fds          *sync.Map     // that were bound
	taken        bool          // none can be bound
}

func (p portless) bind(fd int, _ *sockaddr) unix.Errno { // the real port is left to the kernel
	if p.taken {
		return unix.EADDRINUSE
	}
	p.fds.Store(fd, true)
	return 0
}

func (p portless) socket(family int) (int, unix.Errno) {
	fd, errno := p.linux.socket(family)
	p.fds.Delete(fd)
	return fd, errno
}

func (p portless) connect(fd int, to *sockaddr) unix.Errno {
	_, isBound := p.fds.Load(fd)
	switch {
	case !isBound:
		p.other.Add(1)
		return unix.EADDRNOTAVAIL
	case p.bound.Add(1) <= p.busy.Load():
		return unix.EADDRNOTAVAIL
	}
	return p.linux.connect(fd, to)
}

// TestNoSourcePortToBeHad: when the kernel has no source port left, one is bound, and where that is busy the next, before
// a client is refused (moby#47537).
func TestNoSourcePortToBeHad(t *testing.T) {
	for _, test := range []struct {
		name   string
		busy   int64
		taken  bool
		served bool
	}{{"the kernel has none", 0, false, true}, {"some are busy", 5, false, true}, {"all are busy", 1 << 30, false, false},
		{"none can be bound", 0, true, false}} {
		t.Run(test.name, func(t *testing.T) {
			var busy, bound, other atomic.Int64
			busy.Store(test.busy)
			e := scriptedEngine(t, portless{linux{}, &busy, &bound, &other, new(sync.Map), test.taken})
			fd, addr := rig.Bind(t, rig.Loopback)
			p, err := e.Add(fd, rig.Backend(t, rig.Echo))
			rig.Must(t, err)
			if !test.served {
				rig.WantReset(t, addr)
				if s := p.Stats(); s.DialErrors != 1 || bound.Load() > maxTries || other.Load() > 2 {
					t.Errorf("%v after %d tries, and %d times that the kernel looked; want 1 dial error after %d at the most, and 2",
						s, bound.Load(), other.Load(), maxTries)
				}
				return
			}
			for range 3 {
				conn := rig.Dial(t, "tcp", addr)
				rig.Exchange(t, conn, []byte("hello"))
				rig.Check(t, conn.Close())
			}
			if other.Load() == 0 || bound.Load() != 3+test.busy {
				t.Errorf("the kernel was asked %d times, %d were bound", other.Load(), bound.Load())
			}
			if s := p.Stats(); s.SourcePorts != 3 || s.DialErrors != 0 {
				t.Errorf("%v; want 3 connections from ports of ours", s)
			}
		})
	}
}

// late is a kernel whose connections are established by the time that epoll tells, and not before; by then the backend has
// sent something and reset.
type late struct{ linux }

func (late) getpeername(int, *unix.RawSockaddrAny) unix.Errno { return unix.ENOTCONN }

// TestBannerBeforeAReset: what a backend says before it resets arrives, and is not a failed dial, even if all of it
// happens while the dial is under way.
func TestBannerBeforeAReset(t *testing.T) {
	for name, k := range map[string]kernel{"seen at once": linux{}, "seen late": late{}} {
		t.Run(name, func(t *testing.T) {
			e := scriptedEngine(t, k)
			backend := rig.Backend(t, func(conn *net.TCPConn) {
				_, err := io.WriteString(conn, "banner")
				rig.Check(t, errors.Join(err, conn.SetLinger(0)))
			})
			p, addr := addTo(t, e, backend)
			for read := 0; read < 50; read++ {
				conn, err := net.DialTimeout("tcp", addr.String(), rig.Timeout)
				if errors.Is(err, unix.ECONNRESET) { // all of it came while the client was connecting
					read--
					continue
				}
				rig.Must(t, err)
				got, err := io.ReadAll(conn)
				rig.Check(t, conn.Close())
				if string(got) != "banner" || !errors.Is(err, unix.ECONNRESET) {
					t.Fatalf("the client read %q, %v; want the banner and a reset", got, err)
				}
			}
			if s := p.Stats(); s.DialErrors != 0 {
				t.Errorf("%v; want no dial errors", s)
			}
		})
	}
}

// spoken is a kernel whose connections are established when the backend has spoken, by the time that epoll tells.
type spoken struct {
	late
	has chan struct{}
}

func (s spoken) getpeername(fd int, a *unix.RawSockaddrAny) unix.Errno {
	<-s.has
	return s.late.getpeername(fd, a)
}

// TestBannerWithTheConnection: what a backend says first arrives if one event tells of it and of the connection.
func TestBannerWithTheConnection(t *testing.T) {
	for name, end := range map[string]bool{"the backend waits for an answer": false, "the backend ends": true} {
		t.Run(name, func(t *testing.T) {
			has := make(chan struct{})
			e := scriptedEngine(t, spoken{has: has})
			p, addr := addTo(t, e, rig.Backend(t, func(conn *net.TCPConn) {
				_, err := io.WriteString(conn, "banner")
				if end {
					err = errors.Join(err, conn.CloseWrite())
				}
				rig.Check(t, err)
				close(has)
				rig.Echo(conn)
			}))
			conn := rig.Dial(t, "tcp", addr)
			got := make([]byte, len("banner"))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "banner" {
				t.Fatalf("the client read %q, %v; want the banner", got, err)
			}
			if end {
				if _, err := conn.Read(got); !errors.Is(err, io.EOF) {
					t.Errorf("the client read %v behind the banner, want the end", err)
				}
			}
			if s := p.Stats(); s.DialErrors != 0 || s.Aborted != 0 {
				t.Errorf("%v; want no errors", s)
			}
		})
	}
}

// TestUrgentMarkBeforeTheConnection: a client that sends urgent data while its backend is dialed is told of once, and what is
// behind the mark arrives also if all is spliced.
func TestUrgentMarkBeforeTheConnection(t *testing.T) {
	const content = "beforeafter"
	has, got := make(chan struct{}), make(chan string, 1)
	e := scriptedEngine(t, spoken{has: has})
	fd, addr := rig.Bind(t, rig.Loopback)
	_, err := e.AddWith(fd, rig.Backend(t, func(conn *net.TCPConn) {
		b := make([]byte, len(content))
		n, err := io.ReadFull(conn, b)
		rig.Check(t, err)
		got <- string(b[:n])
	}), Options{Policy: Always})
	rig.Must(t, err)
	conn := rig.Dial(t, "tcp", addr).(*net.TCPConn)
	raw, err := conn.SyscallConn()
	rig.Must(t, err)
	rig.Must(t, raw.Control(func(fd uintptr) {
		rig.Check(t, errors.Join(unix.Send(int(fd), []byte("before"), 0), unix.Send(int(fd), []byte("!"), unix.MSG_OOB),
			unix.Send(int(fd), []byte("after"), 0)))
	}))
	close(has)
	if got := <-got; got != content {
		t.Errorf("the backend read %q, want %q", got, content)
	}
}

func addTo(t *testing.T, e *Engine, backend netip.AddrPort) (*Port, netip.AddrPort) {
	t.Helper()
	fd, addr := rig.Bind(t, rig.Loopback)
	p, err := e.Add(fd, backend)
	rig.Must(t, err)
	return p, addr
}
