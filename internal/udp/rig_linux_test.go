package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func engines() []engine { return []engine{portable, eventLoop} }

var eventLoop = engine{"loop", func(t *testing.T, frontend *net.UDPConn, backend netip.AddrPort, o Options) (relay, error) {
	return NewLoop(takeFD(t, frontend), backend, o)
}}

// takeFD gives the descriptor of a socket, which is closed besides.
func takeFD(t *testing.T, conn *net.UDPConn) (fd int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, failed, conn.Close()); err != nil {
		t.Fatal(err)
	}
	return fd
}

func (l *Loop) settings() Options                 { return l.options }
func (l *Loop) setClock(now func() time.Duration) { l.now = now }

func (l *Loop) sweepNow() {
	l.do(func() {
		l.time = l.now()
		l.sweep()
	})
}

// do runs f on the loop's goroutine, which must be serving, and waits for it.
func (l *Loop) do(f func()) {
	ran := make(chan struct{})
	l.mu.Lock()
	l.post(func() { f(); close(ran) })
	l.mu.Unlock()
	<-ran
}
