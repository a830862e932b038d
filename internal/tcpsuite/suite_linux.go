package tcpsuite

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// systemTests are those that only this system can bring about.
var systemTests = []behaviour{
	{"BackendSilent", backendSilent},
	{"ResetOfAHalfClosedLegWhileTheOtherIsSilent", resetHalfClosedWhileSilent},
	{"ReplyThenReset", replyThenReset},
	{"ResetWhileTheOtherSideDoesNotRead", resetWhileBlocked},
	{"UrgentData", urgentData},
}

// resetHalfClosedWhileSilent: the client has ended its direction, the backend says nothing, and the client resets.
func resetHalfClosedWhileSilent(t *testing.T, e Engine) {
	ended, done := make(chan struct{}), make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := io.Copy(io.Discard, conn)
		must(t, err)
		close(ended)
		<-done
	})
	defer close(done)
	conn := dial(t, p)
	must(t, conn.CloseWrite())
	<-ended
	must(t, conn.SetLinger(0))
	must(t, conn.Close())
	until(t, "the pair ends", func() bool { return p.Stats().Active == 0 })
}

// replyThenReset: the backend sends its whole reply and its end, and resets later because the client goes on sending.
// The reply is complete, and the client must see that it is, though it is read only after the reset.
func replyThenReset(t *testing.T, e Engine) {
	const size = 3_000_000 // more than the way to the client takes, less than that and the proxy's receive buffer
	closed := make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		_, err := conn.Write(make([]byte, size))
		must(t, err)
		must(t, conn.CloseWrite())
		until(t, "the proxy's kernel has all of the reply", func() bool { return unacknowledged(t, conn) == 0 })
		must(t, conn.Close())
		close(closed)
	})
	conn := dial(t, p)
	must(t, conn.SetReadBuffer(64<<10))
	<-closed
	until(t, "the reset of the backend's kernel arrives", func() bool {
		_, err := conn.Write([]byte("x"))
		must(t, err)
		return p.Stats().Aborted == 1 || t.Failed()
	})
	n, err := io.Copy(io.Discard, conn)
	if n != size || err != nil {
		t.Errorf("the client read %d bytes and %v, want %d and the end", n, err, size)
	}
	must(t, conn.Close())
	until(t, "the pair ends", func() bool { return p.Stats().Active == 0 })
}

// unacknowledged is how many bytes the peer's kernel has not taken; the end counts as one.
func unacknowledged(t *testing.T, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }))
	must(t, err)
	return n
}

// resetWhileBlocked: the backend streams to a client that does not read, and resets.
func resetWhileBlocked(t *testing.T, e Engine) {
	progress, reset := make(chan int), make(chan struct{})
	p := start(t, e, func(conn *net.TCPConn) {
		chunk := make([]byte, 1<<20)
		must(t, conn.SetWriteDeadline(time.Now().Add(3*time.Second))) // by then all buffers are full
		for {
			n, err := conn.Write(chunk)
			if err != nil {
				break
			}
			progress <- n
		}
		close(progress)
		must(t, conn.SetLinger(0))
		must(t, conn.Close())
		close(reset)
	})
	conn := dial(t, p)
	for range progress { // until the backend cannot write any more
	}
	<-reset
	until(t, "the pair ends", func() bool { return p.Stats().Active == 0 })
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
		must(t, err)
		received <- n
	})
	conn := dial(t, p)
	_, err := conn.Write(make([]byte, before))
	must(t, err)
	raw, err := conn.SyscallConn()
	must(t, err)
	must(t, raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), []byte{1}, unix.MSG_OOB, nil)
		return !errors.Is(err, unix.EAGAIN)
	}))
	must(t, err)
	_, err = conn.Write(make([]byte, after))
	must(t, err)
	must(t, conn.CloseWrite())
	if n := <-received; n != before+after {
		t.Errorf("the backend read %d bytes, want %d", n, before+after)
	}
}

// backendSilent: a backend that does not answer the connection at all ends the dial in time. A listener whose
// queue is full drops connection requests on Linux.
func backendSilent(t *testing.T, e Engine) {
	var reported reports
	p := e.Start(t, fullListener(t), Options{DialTimeout: 200 * time.Millisecond, Report: reported.add})
	t.Cleanup(p.Close)
	conn := dial(t, p)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !isReset(err) {
		t.Errorf("the client read %d bytes and %v, want a reset", n, err)
	}
	until(t, "the failure is reported", func() bool { return len(reported.get()) == 1 })
	var timeout interface{ Timeout() bool }
	if err := reported.get()[0].err; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("reported %v, want a timeout", err)
	}
}

// fullListener is the address of a listener that has room for no further connection.
func fullListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 0)) // a queue of one
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	first, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, first.Close()) })
	return addr
}
