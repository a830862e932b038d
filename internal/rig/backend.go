package rig

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Listen opens a listener on a fresh port of an address: plain TCP, as dockerd opens it, not MPTCP. It is closed when
// the test ends, if the test has not done so.
func Listen(t testing.TB, on netip.Addr) *net.TCPListener {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp", netip.AddrPortFrom(on, 0).String())
	Must(t, err)
	t.Cleanup(func() { _ = l.Close() }) // the test, or an engine, may have closed it
	return l.(*net.TCPListener)
}

// Address is where a listener listens.
func Address(l *net.TCPListener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// Serve serves each connection to a listener in a goroutine of its own and closes it then. Everything has ended when
// the test has.
func Serve(t testing.TB, l *net.TCPListener, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			Check(t, conn.SetDeadline(time.Now().Add(Timeout)))
			running.Go(func() {
				defer func() { _ = conn.Close() }() // serve may have closed it
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		Check(t, l.Close())
		running.Wait()
	})
	return Address(l)
}

// Backend serves on a fresh port of the loopback interface.
func Backend(t testing.TB, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	return Serve(t, Listen(t, Loopback), serve)
}

// Echo answers with what it reads, to the end. The client notices an error.
func Echo(conn *net.TCPConn) {
	// Hidden from io.Copy, whose own splice would open a pipe for each connection and hold bytes in it.
	_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
}
