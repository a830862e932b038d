package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/sourceport"
)

func engines() []engine { return []engine{portable, eventLoop} }

var eventLoop = engine{"loop", func(t *testing.T, frontend *net.UDPConn, backend netip.AddrPort, o Options) (
	relay, error) {
	group, err := eventloop.New(eventloop.Options{})
	must(t, err)
	group.Hold() // tests that move what is on a loop do so themselves
	p, err := New(group, takeFD(t, frontend), backend, o)
	if err != nil {
		group.Close()
		return nil, err
	}
	return loopRelay{p, group}, nil
}}

// loopRelay is a port with loops of its own.
type loopRelay struct {
	*Port
	group *eventloop.Group
}

// Serve returns when the port is closed. It is served from the start.
func (r loopRelay) Serve() error {
	<-r.done
	return nil
}

func (r loopRelay) Close() error {
	err := r.Port.Close()
	r.group.Close()
	return err
}

func (r loopRelay) settings() Options { return r.Port.settings.Load().Options }

func (r loopRelay) setClock(now func() time.Duration) {
	r.do(func() { r.now = func(*eventloop.Loop) time.Duration { return now() } })
}

func (r loopRelay) setNumbers(p *sourceport.Pool) { r.do(func() { r.numbers = p }) }

func (r loopRelay) sweepNow() { r.do(r.sweep) }

// do runs f on the goroutine of the port's home, and waits for it.
func (p *Port) do(f func()) {
	ran := make(chan struct{})
	if p.atHome(func() { f(); close(ran) }) {
		<-ran
	}
}

// hold keeps the port's home from taking turns until it is let go.
func (p *Port) hold() (letGo func()) {
	let := make(chan struct{})
	held := make(chan struct{})
	p.atHome(func() { close(held); <-let })
	<-held
	return func() { close(let) }
}

// portUnder is the port of a relay that is one.
func portUnder(r *rig) *Port { return r.relay.(loopRelay).Port }

// confined is the real kernel, but that it opens sockets in a namespace.
type confined struct {
	linux
	namespace *netlab.Namespace
}

func (c confined) open(family int, backend unix.Sockaddr, from netip.AddrPort) (fd int, err error) {
	failed := c.namespace.Do(func() error {
		fd, err = c.linux.open(family, backend, from)
		return nil
	})
	return fd, errors.Join(err, failed)
}

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
