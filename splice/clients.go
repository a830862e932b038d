package splice

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Client is a connection through a Port, as Port.Clients tells of it.
type Client struct {
	Address  netip.AddrPort
	Age      time.Duration // since it was accepted
	BytesIn  uint64        // that have reached the backend
	BytesOut uint64        // that have reached the client
}

func (c Client) bytes() uint64 { return c.BytesIn + c.BytesOut }

// busiest are the connections with the most bytes of those that it has been told of, most of them at the most, the
// busiest first.
type busiest struct {
	most int
	all  []Client
}

func (b *busiest) add(c Client) {
	if len(b.all) == b.most && (b.most == 0 || c.bytes() <= b.all[b.most-1].bytes()) {
		return
	}
	// One that has gone to another loop meanwhile may be told of twice.
	if i := slices.IndexFunc(b.all, func(o Client) bool { return o.Address == c.Address }); i >= 0 {
		c = slices.MaxFunc([]Client{c, b.all[i]}, func(x, y Client) int { return cmp.Compare(x.bytes(), y.bytes()) })
		b.all = slices.Delete(b.all, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(b.all, c, func(x, y Client) int { return cmp.Compare(y.bytes(), x.bytes()) })
	if b.all = slices.Insert(b.all, i, c); len(b.all) > b.most {
		b.all = b.all[:b.most]
	}
}
