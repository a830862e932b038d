package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// errClosed is why pairs end when the relay is closed. Nobody is told.
var errClosed = errors.New("relay closed")

// A Relay serves one published port.
type Relay struct {
	backend netip.AddrPort
	timeout time.Duration
	report  func(op string, client, backend netip.AddrPort, err error)
	count   counters
	loop    loop

	listener int
	stop     int // eventfd: readable when the relay is to end
	close    sync.Once
	closed   atomic.Bool
	serving  sync.Mutex // held by Serve
}

// counters are the Stats in the making: written by the loop and read from anywhere.
type counters struct {
	accepted, active, acceptErrors, dialErrors, aborted, undelivered atomic.Uint64
	messagesIn, messagesOut, bytesIn, bytesOut                       atomic.Uint64
}

// New makes a relay of fd, a bound and listening one-to-one SCTP socket of either family, to backend. The relay
// owns fd from here on, and has closed it if New fails.
func New(fd int, backend netip.AddrPort, o Options) (*Relay, error) {
	r := &Relay{
		backend:  netip.AddrPortFrom(backend.Addr().Unmap(), backend.Port()),
		timeout:  o.DialTimeout,
		report:   o.Report,
		listener: fd,
		stop:     -1,
	}
	if r.timeout == 0 {
		r.timeout = DefaultDialTimeout
	}
	if r.report == nil {
		r.report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	}
	r.loop = loop{relay: r, patience: defaultPatience, epoll: -1, pause: minPause, start: time.Now()}
	r.loop.resume.ring = r.loop.listen
	if err := r.open(); err != nil {
		r.release()
		return nil, fmt.Errorf("sctp: listener for %s: %w", backend, err)
	}
	return r, nil
}

// open prepares the listener and opens what the loop waits with.
func (r *Relay) open() (err error) {
	if err := prepareListener(r.listener); err != nil {
		return err
	}
	if r.loop.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if r.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err := r.loop.watch(r.stop, unix.EPOLLIN); err != nil {
		return err
	}
	return r.loop.watch(r.listener, unix.EPOLLIN)
}

// release closes all descriptors of the relay itself. Clients that wait to be accepted are aborted.
func (r *Relay) release() {
	closeWithAbort(r.listener)
	for _, fd := range []int{r.loop.epoll, r.stop} {
		if fd >= 0 {
			closeFD(fd)
		}
	}
}

// Serve accepts associations and relays them until Close, on the calling goroutine. It returns nil after Close, and
// otherwise why it cannot go on; every association has been aborted then.
func (r *Relay) Serve() error {
	r.serving.Lock()
	defer r.serving.Unlock()
	if r.closed.Load() {
		return nil
	}
	defer r.loop.closeAll()
	if err := r.loop.run(); err != nil {
		return fmt.Errorf("sctp: relay to %s: %w", r.backend, err)
	}
	return nil
}

// Close stops listening and aborts every association: none of them looks like an orderly end. It waits for Serve to
// return, so that Report must not call it.
func (r *Relay) Close() error {
	r.close.Do(func() {
		r.closed.Store(true)
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(r.stop, one[:]) // the counter is zero: there is room
		r.serving.Lock()
		defer r.serving.Unlock()
		r.release()
	})
	return nil
}

// Stats returns the counters as they are now, one by one.
func (r *Relay) Stats() Stats {
	return Stats{
		Accepted:     r.count.accepted.Load(),
		Active:       r.count.active.Load(),
		AcceptErrors: r.count.acceptErrors.Load(),
		DialErrors:   r.count.dialErrors.Load(),
		Aborted:      r.count.aborted.Load(),
		Undelivered:  r.count.undelivered.Load(),
		MessagesIn:   r.count.messagesIn.Load(),
		MessagesOut:  r.count.messagesOut.Load(),
		BytesIn:      r.count.bytesIn.Load(),
		BytesOut:     r.count.bytesOut.Load(),
	}
}

// complain reports a failure of one client.
func (r *Relay) complain(op string, client netip.AddrPort, err error) {
	r.report(op, client, r.backend, fmt.Errorf("sctp: %s %s to %s: %w", op, client, r.backend, err))
}
