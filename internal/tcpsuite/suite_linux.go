package tcpsuite

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/rig"
)

// systemTests are those that only this system can bring about.
var systemTests = []behaviour{
	{"AcceptErrors_harbor21753", acceptErrors},
	{"BackendSilent", backendSilent},
	{"SmallMessagesBesideABulkFlow", smallBesideBulk},
	{"ResetOfAHalfClosedLegWhileTheOtherIsSilent", resetHalfClosedWhileSilent},
	{"ReplyThenReset", replyThenReset},
	{"ResetBehindBytesThatWait", resetBehindBytes},
	{"ResetWhileTheOtherSideDoesNotRead", waiting(resetWhileBlocked)},
	{"ClientVanishes_libnetwork2465", waiting(clientVanishes)},
	{"ClientVanishesAfterItsEnd", endedClientVanishes},
	{"UrgentData", urgentData},
	{"HeaderAndFirstBytesInOneSend", headerInOneSend},
}

// smallBesideBulk exchanges small messages while another connection streams without an end, on one CPU: neither waits
// for ever.
func smallBesideBulk(t *testing.T, e Engine) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const rounds, least = 50, 1 << 20
	p := start(t, e, func(conn *net.TCPConn) {
		if _, err := conn.Read(make([]byte, 1)); err != nil { // end of file asks for the stream
			rig.Pour(conn)
		} else {
			rig.Echo(conn)
		}
	})
	bulk := dial(t, p)
	rig.Check(t, bulk.CloseWrite())
	var draining sync.WaitGroup
	draining.Go(func() { rig.Drain(bulk) })
	moved := func() uint64 { s := p.Stats(); return s.Spliced + s.Copied }
	rig.Until(t, "the bulk flow streams", func() bool { return moved() > least })
	small := dial(t, p)
	_, err := small.Write([]byte("s")) // which asks for an echo of what follows
	rig.Check(t, err)
	n, before := uint64(0), moved()
	for ; n < rounds || moved()-before < least; n++ {
		rig.Exchange(t, small, []byte{'s', byte(n)})
	}
	t.Logf("%d bytes of the bulk flow for each exchange", (moved()-before)/n)
	rig.Check(t, bulk.Close())
	draining.Wait()
}

// resetHalfClosedWhileSilent: the client has ended its direction, the backend says nothing, and the client resets.
func resetHalfClosedWhileSilent(t *testing.T, e Engine) {
	ended, done := make(chan struct{}), make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := io.Copy(io.Discard, conn)
		rig.Check(t, err)
		close(ended)
		<-done
	})
	defer close(done)
	conn := dial(t, p)
	rig.Check(t, conn.CloseWrite())
	<-ended
	reset(t, conn)
	pairsEnd(t, p)
}

// replyThenReset: the backend sends its whole reply and its end, and resets later because the client goes on sending.
// The reply is complete, and the client must see that it is, though it is read only after the reset.
func replyThenReset(t *testing.T, e Engine) {
	const size = 3_000_000 // more than the way to the client takes, less than that and the proxy's receive buffer
	replied, done := make(chan *net.TCPConn), make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := conn.Write(make([]byte, size))
		rig.Check(t, err)
		rig.Check(t, conn.CloseWrite())
		replied <- conn
		<-done
	})
	defer close(done)
	conn := dial(t, p)
	rig.Check(t, conn.SetReadBuffer(64<<10))
	backend := <-replied
	rig.Until(t, "the proxy's kernel has all of the reply", func() bool { return rig.Unacknowledged(t, backend) == 0 })
	rig.Check(t, backend.Close())
	rig.Until(t, "the reset of the backend's kernel arrives", func() bool {
		_, err := conn.Write([]byte("x"))
		rig.Check(t, err)
		return p.Stats().Aborted == 1 || t.Failed()
	})
	n, err := io.Copy(io.Discard, conn)
	if n != size || err != nil {
		t.Errorf("the client read %d bytes and %v, want %d and the end", n, err, size)
	}
	rig.Check(t, conn.Close())
	pairsEnd(t, p)
}

// resetBehindBytes: the client resets while much of what it sent waits for a backend that does not read yet, which then
// reads all of it, and the reset.
func resetBehindBytes(t *testing.T, e Engine) {
	for _, test := range []struct {
		name    string
		size    int64
		noticed bool // the reset is, before the backend reads; an engine that waits to write may hear of it later
	}{
		{"in a socket", 1 << 20, true},
		{"in the proxy too", 6 << 20, false}, // more than a socket holds to be sent (net.ipv4.tcp_wmem)
	} {
		t.Run(test.name, func(t *testing.T) {
			read, received, ended := make(chan struct{}), make(chan int64, 1), make(chan error, 1)
			p := start(t, e, func(conn *net.TCPConn) {
				<-read
				n, err := io.Copy(io.Discard, conn)
				received <- n
				ended <- err
			})
			letRead := sync.OnceFunc(func() { close(read) })
			t.Cleanup(letRead) // or a test that fails would wait for the backend
			conn := dial(t, p)
			sent, taken := sendWhatFits(t, conn, test.size)
			reset(t, conn)
			rig.Until(t, "the reset is noticed", func() bool { return !test.noticed || p.Stats().Aborted == 1 })
			letRead()
			if n := <-received; n < taken || n > sent {
				t.Errorf("the backend read %d bytes, want %d to %d", n, taken, sent)
			}
			if err := <-ended; !isReset(err) {
				t.Errorf("the backend's stream ended with %v, want a reset", err)
			}
			pairsEnd(t, p)
		})
	}
}

// sendWhatFits sends bytes until size is reached or the proxy takes no more, and gives how many were sent and how many
// of them the proxy's kernel has.
func sendWhatFits(t *testing.T, conn *net.TCPConn, size int64) (sent, taken int64) {
	const patience = time.Second
	chunk := make([]byte, 64<<10)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for sent < size {
		n, err := conn.Write(chunk)
		rig.Must(t, err)
		sent += int64(n)
		waiting := rig.Unacknowledged(t, conn)
		for begun := time.Now(); waiting > 0 && time.Since(begun) < patience; <-poll.C {
			waiting = rig.Unacknowledged(t, conn)
		}
		if taken = sent - int64(waiting); taken < sent {
			break
		}
	}
	return sent, taken
}

// resetWhileBlocked: the backend streams to a client that does not read, and resets.
func resetWhileBlocked(t *testing.T, e Engine) {
	progress, writing := make(chan int), make(chan *net.TCPConn, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		writing <- conn
		writeOn(conn, progress)
	})
	conn := dial(t, p)
	stall(t, progress)
	reset(t, <-writing)
	if n, open := <-progress; open {
		t.Errorf("the backend wrote %d bytes on a connection that it had reset", n)
	}
	pairsEnd(t, p)
	if _, err := io.Copy(io.Discard, conn); !isReset(err) {
		t.Errorf("the client's stream ended with %v, want a reset", err)
	}
}

// urgentData sends a byte of TCP's urgent data within a stream: it is lost, as it is for every program that does not
// ask for it, and nothing else is.
func urgentData(t *testing.T, e Engine) {
	const before, after = 8 << 20, 1000
	received := make(chan int64, 1)
	p := start(t, e, func(conn *net.TCPConn) {
		n, err := io.Copy(io.Discard, conn)
		rig.Check(t, err)
		received <- n
	})
	conn := dial(t, p)
	_, err := conn.Write(make([]byte, before))
	rig.Check(t, err)
	raw, err := conn.SyscallConn()
	rig.Check(t, err)
	rig.Check(t, raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), []byte{1}, unix.MSG_OOB, nil)
		return !errors.Is(err, unix.EAGAIN)
	}))
	rig.Check(t, err)
	_, err = conn.Write(make([]byte, after))
	rig.Check(t, err)
	rig.Check(t, conn.CloseWrite())
	if n := <-received; n != before+after {
		t.Errorf("the backend read %d bytes, want %d", n, before+after)
	}
}

// headerInOneSend: what a client has sent by the time that its backend is connected leaves with the header, in one segment.
func headerInOneSend(t *testing.T, e Engine) {
	const request = "GET / HTTP/1.1\r\n\r\n"
	for version := uint8(1); version <= 2; version++ {
		got, segments := make(chan string, 1), make(chan uint32, 1)
		backend := rig.Backend(t, func(conn *net.TCPConn) {
			all, err := io.ReadAll(conn)
			rig.Check(t, err)
			raw, err := conn.SyscallConn()
			rig.Check(t, err)
			rig.Check(t, raw.Control(func(fd uintptr) {
				info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
				rig.Check(t, err)
				segments <- info.Data_segs_in
			}))
			got <- string(all)
		})
		l := rig.Listen(t, rig.Loopback)
		conn := rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
		_, err := io.WriteString(conn, request)
		rig.Check(t, errors.Join(err, conn.CloseWrite()))
		p := startOn(t, e, Options{ProxyProtocol: version}, l, backend)
		if n := <-segments; n != 1 {
			t.Errorf("v%d: the backend got %d segments, want 1", version, n)
		}
		if got, want := <-got, header(version, local(conn), p.Addr)+request; got != want {
			t.Errorf("v%d: the backend read %q, want %q", version, got, want)
		}
	}
}

// backendSilent: a backend that does not answer the connection at all ends the dial in time. A listener whose
// queue is full drops connection requests on Linux.
func backendSilent(t *testing.T, e Engine) {
	var reported reports
	var told watcher
	backend := rig.Silent(t, rig.Loopback)
	p := startWith(t, e, Options{DialTimeout: 200 * time.Millisecond, Report: reported.add, Observe: told.add}, backend)
	conn := dial(t, p)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !isReset(err) {
		t.Errorf("the client read %d bytes and %v, want a reset", n, err)
	}
	rig.Until(t, "the failure is reported", func() bool { return len(reported.get()) == 1 })
	var timeout interface{ Timeout() bool }
	if err := reported.get()[0].err; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("reported %v, want a timeout", err)
	}
	end := told.one(t, backend)
	if end.Reason != connection.DialFailed || !errors.As(end.Err, &timeout) || !timeout.Timeout() || end.Lasted < 200*time.Millisecond {
		t.Errorf("the end is %+v; want a dial that was given up after 200 ms", end)
	}
}
