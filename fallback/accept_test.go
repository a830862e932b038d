package fallback

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/rig"
)

// AddFailing is Add for a listener whose next calls of accept(2) fail.
func (e *Engine) AddFailing(l *net.TCPListener, backend netip.AddrPort, errnos []syscall.Errno) (*Port, error) {
	return e.add(&failingListener{TCPListener: l, errnos: errnos}, backend)
}

// FailSockets has the next sockets for backends fail. The engine has no port yet.
func (e *Engine) FailSockets(errnos []syscall.Errno) {
	var made atomic.Int64
	e.socketError = func() error {
		if n := int(made.Add(1)); n <= len(errnos) {
			return os.NewSyscallError("socket", errnos[n-1])
		}
		return nil
	}
}

type failingListener struct {
	*net.TCPListener
	errnos []syscall.Errno
}

func (f *failingListener) AcceptTCP() (*net.TCPConn, error) {
	if len(f.errnos) == 0 {
		return f.TCPListener.AcceptTCP()
	}
	errno := f.errnos[0]
	f.errnos = f.errnos[1:]
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: f.Addr(), Err: os.NewSyscallError("accept4", errno)}
}

// exhausted is a listener on a machine that has run out of descriptors.
type exhausted struct{}

func (exhausted) AcceptTCP() (*net.TCPConn, error) { return nil, syscall.EMFILE }
func (exhausted) SetDeadline(time.Time) error      { return nil }
func (exhausted) Close() error                     { return nil }

// TestFailingAcceptDoesNotSpin: the pauses between calls of accept that fail become longer, up to half a second.
func TestFailingAcceptDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := make(chan time.Duration)
		start := time.Now()
		e := New(Options{Report: func(string, netip.AddrPort, netip.AddrPort, error) {
			reports <- time.Since(start) / time.Millisecond
		}})
		_, err := e.add(exhausted{}, netip.AddrPort{})
		rig.Must(t, err)
		want := []time.Duration{0, 5, 15, 35, 75, 155, 315, 635, 1135, 1635, 2135, 2635}
		var failed []time.Duration
		for range want {
			failed = append(failed, <-reports)
		}
		rig.Must(t, e.Close())
		if diff := cmp.Diff(want, failed); diff != "" {
			t.Errorf("calls of accept, in milliseconds: -want +got:\n%s", diff)
		}
	})
}
