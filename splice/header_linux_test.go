package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// noting is a kernel that tells what is sent first.
type noting struct {
	kernel
	first chan string
}

func (n noting) send(fd int, b []byte) (int, unix.Errno) {
	select {
	case n.first <- string(b):
	default:
	}
	return n.kernel.send(fd, b)
}

// TestHeaderIsOneSend: the header leaves with what the client has sent by the time that its backend is connected, whether
// that is known at once or told by epoll, and behind the header of the client itself.
func TestHeaderIsOneSend(t *testing.T) {
	const told, request = "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n", "request"
	for name, k := range map[string]kernel{"connected at once": linux{}, "connected late": late{}} {
		for _, accept := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				first := make(chan string, 1)
				e := scriptedEngine(t, noting{k, first})
				o := Options{ProxyProtocol: 1}
				sent, want := request, ""
				if accept {
					o.AcceptProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
					sent, want = told+request, told
				}
				got := make(chan string, 1)
				backend := rig.Backend(t, func(conn *net.TCPConn) {
					all, err := io.ReadAll(conn)
					rig.Check(t, err)
					got <- string(all)
				})
				l := rig.Listen(t, rig.Loopback)
				conn := rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
				if client, frontend := conn.LocalAddr().(*net.TCPAddr), rig.Address(l); !accept {
					want = fmt.Sprintf("PROXY TCP4 %v %v %d %d\r\n", client.IP, frontend.Addr(), client.Port, frontend.Port())
				}
				_, err := io.WriteString(conn, sent)
				rig.Must(t, errors.Join(err, conn.CloseWrite()))
				p, err := e.AddWith(rig.Take(t, l), backend, o)
				rig.Must(t, err)
				if first := <-first; first != want+request {
					t.Errorf("%q was sent first, want %q", first, want+request)
				}
				if got := <-got; got != want+request {
					t.Errorf("the backend read %q, want %q", got, want+request)
				}
				rig.Until(t, "the pair ends", func() bool { return p.Stats().Active == 0 })
				if s := p.Stats(); s.Copied != uint64(len(want+request)) {
					t.Errorf("%v; want %d copied", s, len(want+request))
				}
			})
		}
	}
}

// busy is a kernel that does something before each connection to a backend, and counts what is sent.
type busy struct {
	kernel
	before func()
	sends  int
}

func (b *busy) connect(fd int, to *sockaddr) unix.Errno {
	b.before()
	return b.kernel.connect(fd, to)
}

func (b *busy) send(fd int, data []byte) (int, unix.Errno) {
	b.sends++
	return b.kernel.send(fd, data)
}

// TestHeaderWaitsForTheTurnsEnd: the header leaves at once with what the client has sent, or else with what it has sent by the end of
// the turn in which it was accepted, or else by itself.
func TestHeaderWaitsForTheTurnsEnd(t *testing.T) {
	l := rig.Listen(t, rig.Loopback)
	clients := make([]*net.TCPConn, 4)
	for i := range clients {
		clients[i] = rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
	}
	send := func(i int) {
		_, err := io.WriteString(clients[i], "request")
		rig.Check(t, errors.Join(err, clients[i].CloseWrite()))
	}
	ended := make(chan string, len(clients))
	backend := rig.Backend(t, func(conn *net.TCPConn) {
		all, err := io.ReadAll(conn)
		rig.Check(t, err)
		ended <- string(all)
	})
	first, dials := make(chan string, len(clients)), 0
	k := &busy{kernel: noting{linux{}, first}}
	k.before = func() {
		switch dials++; dials {
		case 1:
		case 2:
			if k.sends != 1 {
				t.Error("the header of a client that has sent a request waits")
			}
		default:
			send(dials - 2) // the client before: its backend is connected
		}
	}
	e := scriptedEngine(t, k)
	send(0)
	_, err := e.AddWith(rig.Take(t, l), backend, Options{ProxyProtocol: 1})
	rig.Must(t, err)
	for range len(clients) - 1 {
		if got := <-first; !strings.HasSuffix(got, "\r\nrequest") {
			t.Errorf("%q was sent first, want the request behind a header", got)
		}
		<-ended
	}
	if got := <-first; !strings.HasPrefix(got, "PROXY TCP4 ") || !strings.HasSuffix(got, "\r\n") {
		t.Errorf("%q was sent first for a client that says nothing, want the header", got)
	}
	rig.Must(t, clients[len(clients)-1].CloseWrite())
	<-ended
}

// TestClientLeavesDuringItsHeader: a client that resets while its header is awaited is no failure of anybody's, whenever
// it is noticed, and leaves no backend dialed.
func TestClientLeavesDuringItsHeader(t *testing.T) {
	o := Options{AcceptProxyProtocol: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, test := range []struct {
		name    string
		waiting bool // it resets when it has been accepted
	}{{"before accept", false}, {"later", true}} {
		t.Run(test.name, func(t *testing.T) {
			var told failures
			o.Report = told.report
			e := scriptedEngine(t, linux{})
			l := rig.Listen(t, rig.Loopback)
			conn := rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
			leave := func() { rig.Must(t, errors.Join(conn.SetLinger(0), conn.Close())) }
			if !test.waiting {
				leave()
			}
			p, err := e.AddWith(rig.Take(t, l), rig.Refusing(t), o)
			rig.Must(t, err)
			rig.Until(t, "it is accepted", func() bool { return p.Stats().Accepted == 1 })
			if test.waiting {
				leave()
			}
			rig.Until(t, "the pair ends", func() bool { return p.Stats().Active == 0 })
			if s := p.Stats(); s.Aborted != 1 || s.HeadersRefused != 0 || s.DialErrors != 0 || len(told.all) != 0 {
				t.Errorf("%v, reported %v; want 1 aborted", s, told.all)
			}
		})
	}
}

// TestWaitIsNotBegunAnew: the header and the dial have one bound: a pair that waits on keeps the time that it had.
func TestWaitIsNotBegunAnew(t *testing.T) {
	l, port := testLoop(t, Options{DialTimeout: time.Hour}, linux{})
	client, fd := socketPair(t)
	p := &pair{settings: port.settings.Load(), failed: neither}
	p.legs[front].fd, p.legs[back].fd = int32(fd), -1
	l.Do(func() {
		l.share(port).add(p)
		l.SetTimer(&p.timer, p, l.Now()) // the hour is over
		p.await()
	})
	rig.Until(t, "the client is refused", func() bool { return port.Stats().HeadersRefused == 1 })
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client read %v, want a reset", err)
	}
}

// TestUnknownVersion: a port with a version of the protocol that does not exist is refused.
func TestUnknownVersion(t *testing.T) {
	e := scriptedEngine(t, linux{})
	fd, _ := rig.Bind(t, rig.Loopback)
	if _, err := e.AddWith(fd, netip.MustParseAddrPort("127.0.0.1:1"), Options{ProxyProtocol: 3}); err == nil {
		t.Error("version 3 is taken")
	}
}
