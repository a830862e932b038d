package tcpsuite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/proxyheader"
	"github.com/portsplice/portsplice/internal/rig"
)

// header is what the PROXY protocol has for two addresses of one family, written without the library that the engines use.
func header(version uint8, client, frontend netip.AddrPort) string {
	family, word := byte(0x11), "TCP4"
	if client.Addr().Is6() {
		family, word = 0x21, "TCP6"
	}
	if version == 1 {
		return fmt.Sprintf("PROXY %s %v %v %d %d\r\n", word, client.Addr(), frontend.Addr(), client.Port(), frontend.Port())
	}
	content := append(client.Addr().AsSlice(), frontend.Addr().AsSlice()...)
	content = binary.BigEndian.AppendUint16(content, client.Port())
	content = binary.BigEndian.AppendUint16(content, frontend.Port())
	return headerV2(1, family, string(content))
}

// headerV2 is a header of version 2. The command is 0 for LOCAL and 1 for PROXY.
func headerV2(command, family byte, content string) string {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(content)))) + content
}

var (
	loopback6 = netip.IPv6Loopback()
	trusted   = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
)

// local is the address that a connection has on this side.
func local(conn net.Conn) netip.AddrPort { return conn.LocalAddr().(*net.TCPAddr).AddrPort() }

// headerToBackend: a backend that speaks first is told who the client is before the client has said anything, in the
// client's own family, whatever that of the listener and of the backend.
func headerToBackend(t *testing.T, e Engine) {
	for _, test := range []struct {
		name                    string
		client, listen, backend netip.Addr
	}{
		{"IPv4", rig.Loopback, rig.Loopback, rig.Loopback},
		{"IPv6", loopback6, loopback6, loopback6},
		{"IPv4 to IPv6", rig.Loopback, rig.Loopback, loopback6},
		{"IPv6 to IPv4", loopback6, loopback6, rig.Loopback},
		{"IPv4 on an IPv6 socket", rig.Loopback, netip.IPv6Unspecified(), loopback6},
	} {
		for version := uint8(1); version <= 2; version++ {
			t.Run(fmt.Sprintf("%s v%d", test.name, version), func(t *testing.T) {
				got := make(chan string, 1)
				backend := rig.Serve(t, rig.Listen(t, test.backend), func(conn *net.TCPConn) {
					length := len(header(version, netip.AddrPortFrom(test.client, 10_000), netip.AddrPortFrom(test.client, 10_000)))
					if version == 1 { // whose ports have as many digits as they need
						length = 0
					}
					got <- readHeader(t, conn, length)
					_, err := io.WriteString(conn, "220 ready\r\n")
					rig.Check(t, err)
					rig.Echo(conn)
				})
				l := rig.Listen(t, test.listen)
				frontend := netip.AddrPortFrom(test.client, rig.Address(l).Port())
				startOn(t, e, Options{ProxyProtocol: version}, l, backend)
				conn := rig.Dial(t, "tcp", frontend)
				banner := make([]byte, len("220 ready\r\n"))
				_, err := io.ReadFull(conn, banner)
				rig.Must(t, err)
				if got, want := <-got, header(version, local(conn), frontend); got != want {
					t.Errorf("the backend read %q, want %q", got, want)
				}
				rig.Exchange(t, conn, []byte("EHLO"))
			})
		}
	}
}

// readHeader reads a header of that length, or a line.
func readHeader(t *testing.T, conn net.Conn, length int) string {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); len(got) < length || length == 0 && !strings.HasSuffix(string(got), "\n"); {
		if _, err := conn.Read(b); err != nil {
			t.Errorf("%v after %q", err, got)
			break
		}
		got = append(got, b...)
	}
	return string(got)
}

// headerThenBytes streams both ways behind a header, while the backend does not read at first.
func headerThenBytes(t *testing.T, e Engine) {
	const size = 8 << 20
	type end struct {
		sum  uint64
		size int64
	}
	read, ended := make(chan struct{}), make(chan end, 1)
	length := len(header(2, netip.AddrPortFrom(rig.Loopback, 1), netip.AddrPortFrom(rig.Loopback, 1)))
	heads := make(chan string, 1)
	backend := rig.Backend(t, func(conn *net.TCPConn) {
		<-read
		heads <- readHeader(t, conn, length)
		sum, n, err := digest(conn)
		rig.Check(t, err)
		ended <- end{sum, n}
		_, err = conn.Write(make([]byte, lateReply))
		rig.Check(t, err)
	})
	p := startWith(t, e, Options{ProxyProtocol: 2}, backend)
	conn := dial(t, p)
	up := newStream(1, size)
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(up.writeTo(conn), conn.CloseWrite()) }()
	rig.Until(t, "the stream is under way", func() bool { s := p.Stats(); return s.Copied+s.Spliced > 1<<16 })
	close(read)
	if got, want := <-heads, header(2, local(conn), p.Addr); got != want {
		t.Errorf("the backend read %q, want %q", got, want)
	}
	rig.Check(t, <-sent)
	if got, want := <-ended, (end{up.sum.Sum64(), size}); got != want {
		t.Errorf("behind the header: got %+v, want %+v", got, want)
	}
	if n, err := io.Copy(io.Discard, conn); n != lateReply || err != nil {
		t.Errorf("the reply has %d bytes, %v; want %d", n, err, lateReply)
	}
	pairsEnd(t, p)
}

// headerThenEnd: what a client has sent, and its end, were there before the engine was: the backend gets the header, the
// bytes and the end, or with a reset the bytes and a reset, and the reply to an end is whole.
func headerThenEnd(t *testing.T, e Engine) {
	for _, test := range []struct {
		name, request string
		resets        bool
	}{
		{"request and end", "request", false}, {"end", "", false}, {"request and reset", "request", true}, {"reset", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ended := make(chan string, 1), make(chan error, 1)
			backend := rig.Backend(t, func(conn *net.TCPConn) {
				all, err := io.ReadAll(conn)
				got <- string(all)
				ended <- err
				_, _ = conn.Write(make([]byte, lateReply)) // a client that has reset gets nothing
			})
			l := rig.Listen(t, rig.Loopback)
			conn := rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
			_, err := io.WriteString(conn, test.request)
			rig.Check(t, err)
			if test.resets {
				reset(t, conn)
			} else {
				rig.Check(t, conn.CloseWrite())
			}
			p := startOn(t, e, Options{ProxyProtocol: 1}, l, backend)
			nothing := test.resets && test.request == "" // is as good as a header then
			if got, want := <-got, header(1, local(conn), p.Addr)+test.request; got != want && (got != "" || !nothing) {
				t.Errorf("the backend read %q, want %q", got, want)
			}
			if err := <-ended; isReset(err) != test.resets {
				t.Errorf("the backend's stream ended with %v, want a reset: %v", err, test.resets)
			}
			if !test.resets {
				if n, err := io.Copy(io.Discard, conn); n != lateReply || err != nil {
					t.Errorf("the reply has %d bytes, %v; want %d", n, err, lateReply)
				}
			}
			pairsEnd(t, p)
		})
	}
}

// told are addresses that a header of the client tells.
var told = [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("198.51.100.2:443")}

// acceptable are headers that a proxy in front may send, and whether they tell addresses that count.
var acceptable = []struct {
	name, header string
	tells        bool
}{
	{"v1", header(1, told[0], told[1]), true},
	{"v2", header(2, told[0], told[1]), true},
	{"v2 with TLVs", headerV2(1, 0x11, "\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb"+"\x02\x0f\xa1"+strings.Repeat("x", 4001)), true},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", false},
	{"v2 LOCAL", headerV2(0, 0, ""), false},
}

// headerAccepted: the header of a proxy in front is taken off, and nothing else, however it comes.
func headerAccepted(t *testing.T, e Engine) {
	for _, test := range acceptable {
		t.Run(test.name, func(t *testing.T) {
			p := startWith(t, e, Options{AcceptProxyProtocol: trusted}, rig.Backend(t, rig.Echo))
			for name, write := range map[string]func(conn net.Conn, message string) error{
				"at once": func(conn net.Conn, message string) error {
					_, err := io.WriteString(conn, test.header+message)
					return err
				},
				"apart": func(conn net.Conn, message string) error {
					_, err := io.WriteString(conn, test.header)
					_, second := io.WriteString(conn, message)
					return errors.Join(err, second)
				},
				"in pieces": func(conn net.Conn, message string) error {
					for _, piece := range strings.SplitAfter(test.header[:min(len(test.header), 100)], "") {
						if _, err := io.WriteString(conn, piece); err != nil {
							return err
						}
					}
					_, err := io.WriteString(conn, test.header[min(len(test.header), 100):]+message)
					return err
				},
			} {
				const message = "hello\r\n"
				conn := dial(t, p)
				rig.Must(t, write(conn, message))
				echo := make([]byte, len(message))
				if _, err := io.ReadFull(conn, echo); err != nil || string(echo) != message {
					t.Errorf("%s: %q came back, %v; want %q", name, echo, err, message)
				}
				rig.Check(t, conn.CloseWrite())
				if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
					t.Errorf("%s: %q and %v came back, want the end", name, rest, err)
				}
			}
			pairsEnd(t, p)
			if s := p.Stats(); s.HeadersRefused != 0 || s.Accepted != 3 || s.Aborted != 0 {
				t.Errorf("%+v; want 3 connections, and no header refused", s)
			}
		})
	}
}

// headerPassedOn: what the header of a proxy in front tells is told to the backend, and failures name it; a header that
// tells nothing is replaced by one of the connection itself.
func headerPassedOn(t *testing.T, e Engine) {
	for _, test := range acceptable {
		for version := uint8(1); version <= 2; version++ {
			t.Run(fmt.Sprintf("%s to v%d", test.name, version), func(t *testing.T) {
				o := Options{AcceptProxyProtocol: trusted, ProxyProtocol: version}
				got := make(chan string, 1)
				p := startWith(t, e, o, rig.Backend(t, func(conn *net.TCPConn) {
					all, err := io.ReadAll(conn)
					rig.Check(t, err)
					got <- string(all)
				}))
				conn := dial(t, p)
				_, err := io.WriteString(conn, test.header+"hello")
				rig.Check(t, errors.Join(err, conn.CloseWrite()))
				want := header(version, local(conn), p.Addr)
				if test.tells {
					want = header(version, told[0], told[1])
				}
				if got := <-got; got != want+"hello" {
					t.Errorf("the backend read %q, want %q", got, want+"hello")
				}
			})
		}
	}
	var reported reports
	p := startWith(t, e, Options{AcceptProxyProtocol: trusted, Report: reported.add}, closedPort(t))
	conn := dial(t, p)
	_, err := io.WriteString(conn, header(1, told[0], told[1]))
	rig.Check(t, err)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !isReset(err) {
		t.Errorf("the client read %d bytes and %v, want a reset", n, err)
	}
	rig.Until(t, "the failure is reported", func() bool { return len(reported.get()) == 1 })
	if f := reported.get()[0]; f.op != "dial" || f.client != told[0] {
		t.Errorf("reported %+v, want a dial for %v", f, told[0])
	}
}

// headerRefused: a trusted client without a header as it should be is reset, counted and reported, and no backend hears
// of it. The next client is served.
func headerRefused(t *testing.T, e Engine) {
	for _, test := range []struct {
		name, sent string
		ends       bool // the client does
	}{
		{"no header", "GET / HTTP/1.1\r\n\r\n", false},
		{"one byte", "G", false},
		{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("f", 200) + "\r\n", false},
		{"v1 without addresses", "PROXY TCP4\r\n", false},
		{"v2 too long", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", false},
		{"v2 of an unknown family", headerV2(1, 0x77, strings.Repeat("x", 100)), false},
		{"v1 cut short", "PROXY TCP4 192.0.2.1", true},
		{"v2 cut short", headerV2(1, 0x21, strings.Repeat("x", 36))[:30], true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var reported reports
			o := Options{AcceptProxyProtocol: trusted, ProxyProtocol: 1, Report: reported.add}
			dialed := make(chan string, 2)
			p := startWith(t, e, o, rig.Backend(t, func(conn *net.TCPConn) { dialed <- readHeader(t, conn, 0) }))
			conn := dial(t, p)
			_, err := io.WriteString(conn, test.sent)
			rig.Check(t, err)
			if test.ends {
				rig.Check(t, conn.CloseWrite())
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !isReset(err) {
				t.Errorf("the client read %d bytes and %v, want a reset", n, err)
			}
			rig.Until(t, "the pair ends", func() bool { s := p.Stats(); return s.HeadersRefused == 1 && s.Active == 0 })
			all := reported.get()
			if len(all) != 1 || all[0].op != "proxy header" || all[0].client != local(conn) ||
				errors.Is(all[0].err, proxyheader.ErrEnded) != test.ends || errors.Is(all[0].err, proxyheader.ErrTimeout) {
				t.Errorf("reported %v; want one header of %v", all, local(conn))
			}
			next := dial(t, p)
			_, err = io.WriteString(next, header(1, told[0], told[1]))
			rig.Check(t, err)
			if got := <-dialed; got != header(1, told[0], told[1]) {
				t.Errorf("the backend read %q, want the next client's header", got)
			}
			if s := p.Stats(); s.DialErrors != 0 || s.Aborted != 0 || s.HeadersRefused != 1 {
				t.Errorf("%+v; want nothing but one header refused", s)
			}
		})
	}
}

// headerOfNobody: a trusted client that ends without a byte is no failure: it has closed the connection, which ends in order,
// and no backend hears of it.
func headerOfNobody(t *testing.T, e Engine) {
	var reported reports
	ended := make(chan connection.Connection, 1)
	o := Options{AcceptProxyProtocol: trusted, Report: reported.add, Observe: func(c connection.Connection) {
		if c.Phase == connection.Ended {
			ended <- c
		}
	}}
	p := startWith(t, e, o, rig.Backend(t, rig.Echo))
	conn := dial(t, p)
	rig.Check(t, conn.CloseWrite())
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the client read %d bytes and %v, want the end", n, err)
	}
	if c := <-ended; c.Client != local(conn) || c.End != (connection.End{By: connection.Client, Reason: connection.Closed}) {
		t.Errorf("told of %+v, want that the client has closed it", c)
	}
	pairsEnd(t, p)
	if s := p.Stats(); s.Accepted != 1 || s.HeadersRefused != 0 || s.Aborted != 0 || s.DialErrors != 0 || len(reported.get()) != 0 {
		t.Errorf("%+v, %v reported; want one client and no failure", s, reported.get())
	}
}

// headerKeepsNobodyWaiting: trusted clients that say nothing, or begin and do not go on, are waited for by nobody else.
func headerKeepsNobodyWaiting(t *testing.T, e Engine) {
	p := startWith(t, e, Options{AcceptProxyProtocol: trusted}, rig.Backend(t, rig.Echo))
	for _, begun := range []string{"", "PROXY TCP4 192."} {
		_, err := io.WriteString(dial(t, p), begun)
		rig.Check(t, err)
	}
	conn := dial(t, p)
	_, err := io.WriteString(conn, "PROXY UNKNOWN\r\n")
	rig.Check(t, err)
	rig.Exchange(t, conn, []byte("hello"))
	if s := p.Stats(); s.Active != 3 || s.HeadersRefused != 0 {
		t.Errorf("%+v; want 3 active", s)
	}
}

// headerTooLate: trusted clients that say nothing, or begin and do not go on, are reset when the dial timeout is over. One
// that resets by itself is no failure.
func headerTooLate(t *testing.T, e Engine) {
	var reported reports
	o := Options{AcceptProxyProtocol: trusted, DialTimeout: 2 * time.Second, Report: reported.add}
	p := startWith(t, e, o, rig.Backend(t, rig.Echo))
	gone := dial(t, p)
	rig.Until(t, "it is accepted", func() bool { return p.Stats().Active == 1 })
	reset(t, gone)
	pairsEnd(t, p)
	fast := dial(t, p)
	_, err := io.WriteString(fast, "PROXY UNKNOWN\r\n")
	rig.Check(t, err)
	rig.Exchange(t, fast, []byte("hello"))
	slow := []*net.TCPConn{dial(t, p), dial(t, p)}
	_, err = io.WriteString(slow[0], "PROXY TCP4 192.")
	rig.Check(t, err)
	for _, conn := range slow {
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !isReset(err) {
			t.Errorf("a slow client read %d bytes and %v, want a reset", n, err)
		}
	}
	rig.Until(t, "they are counted", func() bool { s := p.Stats(); return s.HeadersRefused == 2 && s.Active == 1 })
	for _, f := range reported.get() {
		if f.op != "proxy header" || !errors.Is(f.err, proxyheader.ErrTimeout) {
			t.Errorf("reported %+v, want a header that was too late", f)
		}
	}
	if s := p.Stats(); s.Aborted != 1 || len(reported.get()) != 2 {
		t.Errorf("%+v, %d reported; want 1 aborted and 2", s, len(reported.get()))
	}
	rig.Exchange(t, fast, []byte("for longer than the timeout"))
}

// headerOfNobodyTrusted: of others no header is expected or believed: its bytes are the client's own, behind the header
// that says who it is.
func headerOfNobodyTrusted(t *testing.T, e Engine) {
	got := make(chan string, 1)
	o := Options{AcceptProxyProtocol: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, ProxyProtocol: 1}
	p := startWith(t, e, o, rig.Backend(t, func(conn *net.TCPConn) {
		all, err := io.ReadAll(conn)
		rig.Check(t, err)
		got <- string(all)
	}))
	conn := dial(t, p)
	spoof := header(1, told[0], told[1])
	_, err := io.WriteString(conn, spoof)
	rig.Check(t, errors.Join(err, conn.CloseWrite()))
	if got, want := <-got, header(1, local(conn), p.Addr)+spoof; got != want {
		t.Errorf("the backend read %q, want %q", got, want)
	}
	pairsEnd(t, p)
}
