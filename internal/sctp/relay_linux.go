package sctp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// An accept that fails, mostly for want of descriptors, is tried again after a pause, which grows.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// A Relay serves one published port.
type Relay struct {
	listener *leg // it never sends or receives, only accepts
	backend  netip.AddrPort
	timeout  time.Duration
	patience patience
	report   func(op string, client, backend netip.AddrPort, err error)

	closing context.Context
	close   context.CancelFunc
	pairs   sync.WaitGroup
	count   counters
}

// New makes a relay of fd, a bound and listening one-to-one SCTP socket of either family, to backend. The relay
// owns fd from here on, and has closed it if New fails.
func New(fd int, backend netip.AddrPort, o Options) (*Relay, error) {
	if err := prepareListener(fd); err != nil {
		_ = unix.Close(fd) // the first error says more
		return nil, fmt.Errorf("sctp: listener for %s: %w", backend, err)
	}
	r := &Relay{
		backend:  netip.AddrPortFrom(backend.Addr().Unmap(), backend.Port()),
		timeout:  o.DialTimeout,
		patience: defaultPatience,
		report:   o.Report,
	}
	if r.timeout == 0 {
		r.timeout = DefaultDialTimeout
	}
	if r.report == nil {
		r.report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	}
	r.closing, r.close = context.WithCancel(context.Background())
	var err error
	if r.listener, err = newLeg(r.closing, fd, netip.AddrPort{}); err != nil {
		r.close()
		return nil, fmt.Errorf("sctp: listener for %s: %w", backend, err)
	}
	return r, nil
}

// Serve accepts associations and relays them until Close. It returns nil when the last of them has ended.
func (r *Relay) Serve() error {
	defer r.pairs.Wait()
	pause := minPause
	for r.closing.Err() == nil {
		client, err := r.accept()
		switch {
		case err == nil:
			pause = minPause
			r.pairs.Go(func() { r.serve(client) })
		case r.closing.Err() == nil:
			r.count.acceptErrors.Add(1)
			r.report("accept", netip.AddrPort{}, r.backend, fmt.Errorf("sctp: accept for %s: %w", r.backend, err))
			r.rest(pause)
			pause = min(2*pause, maxPause)
		}
	}
	return nil
}

// rest waits for the pause, or for Close.
func (r *Relay) rest(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.closing.Done():
	}
}

// Close stops listening and aborts every association: none of them looks like an orderly end.
func (r *Relay) Close() error {
	r.close()
	r.listener.abort()
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

// serve relays the association of one client, from the call to the backend to the end.
func (r *Relay) serve(client *leg) {
	r.count.accepted.Add(1)
	r.count.active.Add(1)
	defer r.count.active.Add(^uint64(0))

	backend, err := r.dial(offerFor(client))
	if err != nil {
		r.count.dialErrors.Add(1)
		client.abort()
		r.complain("dial", client, err)
		return
	}
	p := &pair{frontend: client, backend: backend, patience: r.patience, count: &r.count}
	if err := p.run(); err != nil {
		r.count.aborted.Add(1)
		r.complain("relay", client, err)
	}
}

// complain reports a failure, unless it is the relay's own end or a peer's wish.
func (r *Relay) complain(op string, client *leg, err error) {
	if r.closing.Err() != nil || op == "relay" && errors.Is(err, unix.ECONNRESET) {
		return
	}
	r.report(op, client.peer, r.backend, fmt.Errorf("sctp: %s %s to %s: %w", op, client.peer, r.backend, err))
}

// offerFor is what the backend is offered: the streams that the client has, in both directions.
func offerFor(client *leg) sctp.InitMsg {
	in, out, err := client.streams()
	if err != nil {
		// The client has come and gone, perhaps with messages on any stream left to be read.
		in, out = sctp.SCTP_MAX_STREAM, frontendStreams
	}
	return sctp.InitMsg{NumOstreams: in, MaxInstreams: out}
}
