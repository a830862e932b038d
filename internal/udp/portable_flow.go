package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/portsplice/portsplice/internal/udp/flows"
)

// portableKey is what makes a flow: who asked, and which of our addresses. The same client port asking two addresses
// is two flows, because the replies must come from two addresses.
type portableKey struct {
	client netip.AddrPort
	asked  local
}

type portableTable = flows.Table[portableKey, *portableFlow]

// portableFlow is a client's entry in the table. The Serve goroutine writes to conn, the flow's own goroutine reads
// from it.
type portableFlow struct {
	flows.Tracking[portableKey]
	tally
	conn    *net.UDPConn  // connected to the backend
	number  uint16        // its source port, if it is of the pool
	inbox   *inbox        // how conn is read
	control []byte        // control message that makes replies leave from key.asked, with room for their traffic class
	lost    atomic.Uint32 // datagrams that conn had no room for, as last told
}

// newPortableFlow owns conn, also when it fails.
func newPortableFlow(key portableKey, conn *net.UDPConn) (*portableFlow, error) {
	inbox, err := newInbox(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &portableFlow{
		Tracking: flows.Tracking[portableKey]{Key: key},
		conn:     conn,
		inbox:    inbox,
		control:  key.asked.appendControl(make([]byte, 0, blockControl)),
	}, nil
}

// close gives the descriptor back before it returns: whoever evicts a flow needs it. It ends the flow's goroutine.
// Closing a datagram socket flushes nothing, so its error says no more than that it was closed before.
func (f *portableFlow) close() (first bool) { return f.conn.Close() == nil }

// forward takes one datagram from a client to the backend.
func (r *Portable) forward(datagram []byte, key portableKey, tos uint8) {
	var control []byte
	if tos != 0 {
		r.marked = appendTOS(r.marked[:0], r.backend.Addr().Is4(), tos)
		control = r.marked
	}
	for try := 1; ; try++ {
		f, err := r.flow(key)
		if err != nil {
			r.drop("open a flow to the backend", key, err)
			return
		}
		if err = r.send(f, datagram, control); err == nil {
			f.count(toBackend, len(datagram))
			r.count.countSent(toBackend, 1, len(datagram))
			return
		}
		if faulty := r.prober.faulty(err, r.now(), func() netip.Addr { return sourceOf(f.conn) },
			r.freshSource); faulty {
			r.abandon(f)
			if try == 1 {
				r.fail("send to the backend, from another port then", key.client, err)
				continue
			}
		}
		r.drop("send to the backend", key, err)
		return
	}
}

// send tries twice. The error that a connected socket answers a send with may be the ICMP answer to an earlier
// datagram, from when the backend was down; it is cleared by being returned, and the datagram in hand has not left.
func (r *Portable) send(f *portableFlow, datagram, control []byte) error {
	first := f.send(datagram, control)
	if first == nil {
		return nil
	}
	r.count.countRefusal(first)
	now := r.now()
	if !r.prober.maybeOfAnother(first, now) {
		return first
	}
	err := f.send(datagram, control)
	if err == nil {
		r.count.retried.Add(1)
		r.fail("send to the backend, done at the second try", f.Key.client, first)
		return nil
	}
	r.count.countRefusal(err)
	r.prober.failedAgain(first, err, now)
	return err
}

// send uses sendmsg, because net's Write answers EAGAIN where it should wait when the datagram is empty.
func (f *portableFlow) send(datagram, control []byte) error {
	_, _, err := f.conn.WriteMsgUDP(datagram, control, nil)
	return err
}

// serveReplies takes the backend's datagrams to the client until the flow is closed.
func (r *Portable) serveReplies(f *portableFlow) {
	defer f.inbox.release()
	var pace backoff
	for {
		datagram, tos, err := f.inbox.receive()
		switch {
		case err == nil:
			pace.reset()
			r.reply(f, datagram, tos)
		case errors.Is(err, errCut):
			r.drop("send to the client", f.Key, err)
		case errors.Is(err, net.ErrClosed):
			return
		case r.count.countRefusal(err):
			// One for each ICMP message, so this cannot spin; and the backend may be back any moment.
			r.fail("receive from the backend", f.Key.client, err)
		default:
			r.fail("receive from the backend", f.Key.client, err)
			pace.pause(r.done)
		}
	}
}

// reply takes one datagram from the backend to the client.
func (r *Portable) reply(f *portableFlow, datagram []byte, tos uint8) {
	f.Touch(r.now())
	if !f.heard { // this goroutine's alone
		f.heard = true
		r.mu.Lock()
		r.flows.Answer(f)
		r.mu.Unlock()
	}
	if f.Key.client.Addr().Unmap().IsUnspecified() {
		r.drop("send to the client", f.Key, errNowhere)
		return
	}
	control := f.control
	if tos != 0 {
		control = appendTOS(control, f.Key.client.Addr().Unmap().Is4(), tos)
	}
	if _, _, err := r.frontend.WriteMsgUDPAddrPort(datagram, control, f.Key.client); err != nil {
		r.drop("send to the client", f.Key, err)
		return
	}
	f.count(toClients, len(datagram))
	r.count.countSent(toClients, 1, len(datagram))
}
