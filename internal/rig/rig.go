// Package rig is what tests put around a proxy: backends, clients, and waits for what has no event.
package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// Timeout bounds every wait. It is long, because machines are slow at times; a test that reaches it has failed.
const Timeout = 30 * time.Second

// Loopback is the address that most tests are content with.
var Loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Must ends the test if err is one. Only the test's own goroutine may call it.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Check fails the test if err is one, and lets it go on. Any goroutine may call it.
func Check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// Until waits for a condition that has no event.
func Until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(Timeout); !condition(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// OwnAddress is an address of the loopback network that no other test process uses, so that a port found free on it stays free.
func OwnAddress() netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(1 + pid>>14), byte(pid >> 7 & 127), byte(1 + pid&127)})
}

// Dial connects to a port. The connection is closed when the test ends, if the test has not done so.
func Dial(t testing.TB, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(network, to.String(), Timeout)
	Must(t, err)
	Must(t, conn.SetDeadline(time.Now().Add(Timeout)))
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn
}

// WantReset connects to a port, sends nothing, and expects a reset, which may be as fast as the connect.
func WantReset(t testing.TB, to netip.AddrPort) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", to.String(), Timeout)
	if err == nil {
		Check(t, conn.SetDeadline(time.Now().Add(Timeout)))
		_, err = io.ReadAll(conn)
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client of %v got %v, want a reset", to, err)
	}
}

// Exchange sends a message and expects it back.
func Exchange(t testing.TB, conn net.Conn, message []byte) {
	t.Helper()
	Must(t, Echoed(conn, message))
}

// Echoed sends a message and reads its echo. It reads while it writes, so that the message may be of any size.
func Echoed(conn net.Conn, message []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(message)
		sent <- err
	}()
	got := make([]byte, len(message))
	if n, err := io.ReadFull(conn, got); err != nil {
		_ = conn.SetWriteDeadline(time.Now()) // nobody waits for the echo of the rest
		return errors.Join(fmt.Errorf("%d of %d bytes came back: %w", n, len(message), err), <-sent)
	}
	if !bytes.Equal(got, message) {
		return fmt.Errorf("%d bytes came back changed", len(message))
	}
	return <-sent
}
