package connection

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// LookAt is how many connections of a port are looked at before its loop goes on with its traffic: 25 us, of 51,200 that are
// not all in the CPU's caches.
const LookAt = 512

// Traffic is what a client's connection has moved.
type Traffic struct {
	Address  netip.AddrPort
	Age      time.Duration // since it was accepted
	BytesIn  uint64        // that have reached the backend
	BytesOut uint64        // that have reached the client
}

func (c Traffic) bytes() uint64 { return c.BytesIn + c.BytesOut }

// Busiest are the connections with the most bytes of those that it has been told of, Most of them at the most, the
// busiest first. One that it is told of twice is in it once.
type Busiest struct {
	Most int
	All  []Traffic
}

// Add tells it of one.
func (b *Busiest) Add(c Traffic) {
	if len(b.All) >= b.Most && (b.Most <= 0 || c.bytes() <= b.All[b.Most-1].bytes()) {
		return
	}
	if i := slices.IndexFunc(b.All, func(o Traffic) bool { return o.Address == c.Address }); i >= 0 {
		c = slices.MaxFunc([]Traffic{c, b.All[i]}, func(x, y Traffic) int { return cmp.Compare(x.bytes(), y.bytes()) })
		b.All = slices.Delete(b.All, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(b.All, c, func(x, y Traffic) int { return cmp.Compare(y.bytes(), x.bytes()) })
	if b.All = slices.Insert(b.All, i, c); len(b.All) > b.Most {
		b.All = b.All[:b.Most]
	}
}
