package udp

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
)

// tally is what has become of a flow of either relay, as Options.Observe is told, if somebody follows it, and Clients tells.
// With it a flow of the event loops has 160 bytes, as many as Go gives it; what more there was would take 16.
type tally struct {
	bytes    [2]atomic.Uint64 // that have left, by direction; each way is of one goroutine at a time
	began    tick
	followed bool
	heard    bool // the backend has answered
	stray    bool // its socket has no address that an answer could go to
}

// tick is a time on the relay's clock, in 64ths of a second: an age comes out right for two years.
type tick uint32

func tickOf(now time.Duration) tick { return tick(now / (time.Second / 64)) }

// age is how long a flow lasts.
func (t *tally) age(now time.Duration) time.Duration {
	return time.Duration(tickOf(now)-t.began) * (time.Second / 64)
}

// begin is for a flow that begins, and tells of it if somebody wants to know.
func (t *tally) begin(o *Options, client, backend netip.AddrPort, now time.Duration) {
	t.began = tickOf(now)
	if t.followed = o.Observe != nil && o.Follows(); t.followed {
		o.Observe(connection.Connection{Phase: connection.Accepted, Client: client, Backend: backend})
	}
}

// count counts what has left, without a locked instruction.
func (t *tally) count(way direction, bytes int) {
	t.bytes[way].Store(t.bytes[way].Load() + uint64(bytes))
}

// traffic is what the flow has moved.
func (t *tally) traffic(client netip.AddrPort, now time.Duration) connection.Traffic {
	return connection.Traffic{Address: client, Age: t.age(now),
		BytesIn: t.bytes[toBackend].Load(), BytesOut: t.bytes[toClients].Load()}
}

// end tells that the flow has ended.
func (t *tally) end(o *Options, client, backend netip.AddrPort, now time.Duration, why connection.Reason) {
	if !t.followed {
		return
	}
	o.Observe(connection.Connection{
		Phase: connection.Ended, Client: client, Backend: backend, Lasted: t.age(now),
		FromClient: t.bytes[toBackend].Load(), FromBackend: t.bytes[toClients].Load(),
		End: connection.End{By: connection.Proxy, Reason: why},
	})
}
