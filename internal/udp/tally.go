package udp

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
)

// tally is what Options.Observe is told of a flow that somebody follows. A flow that nobody does has none.
type tally struct {
	began time.Duration
	bytes [2]atomic.Uint64 // that have left, by direction; each way is of one loop at a time
}

// follow tells that a flow begins, if somebody wants to know.
func (o *Options) follow(client, backend netip.AddrPort, now time.Duration) *tally {
	if o.Observe == nil || !o.Follows() {
		return nil
	}
	o.Observe(connection.Connection{Phase: connection.Accepted, Client: client, Backend: backend})
	return &tally{began: now}
}

// count counts what has left.
func (t *tally) count(way direction, bytes int) {
	if t != nil {
		t.bytes[way].Add(uint64(bytes))
	}
}

// end tells that the flow has ended.
func (o *Options) end(t *tally, client, backend netip.AddrPort, now time.Duration, why connection.Reason) {
	if t == nil {
		return
	}
	o.Observe(connection.Connection{
		Phase: connection.Ended, Client: client, Backend: backend, Lasted: now - t.began,
		FromClient: t.bytes[toBackend].Load(), FromBackend: t.bytes[toClients].Load(),
		End: connection.End{By: connection.Proxy, Reason: why},
	})
}
