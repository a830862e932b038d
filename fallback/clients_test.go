package fallback_test

import (
	"net"
	"testing"

	"github.com/portsplice/portsplice/fallback"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestClients: the busiest connection is told of until it has ended.
func TestClients(t *testing.T) {
	engine := fallback.New(fallback.Options{})
	defer func() { rig.Check(t, engine.Close()) }()
	l := rig.Listen(t, rig.Loopback)
	_, err := engine.Add(l, rig.Serve(t, rig.Listen(t, rig.Loopback), rig.Echo))
	rig.Must(t, err)
	busy, quiet := rig.Dial(t, "tcp", rig.Address(l)), rig.Dial(t, "tcp", rig.Address(l))
	rig.Exchange(t, busy, []byte("hello, hello"))
	rig.Exchange(t, quiet, []byte("hello"))
	tells := func(of net.Conn, moved uint64) bool {
		all := engine.Clients(1)
		return len(all) == 1 && all[0].Address == of.LocalAddr().(*net.TCPAddr).AddrPort() &&
			all[0].BytesIn == moved && all[0].BytesOut == moved
	}
	rig.Until(t, "the busiest is told of", func() bool { return tells(busy, 12) })
	rig.Must(t, busy.Close())
	rig.Until(t, "the other is told of", func() bool { return tells(quiet, 5) })
	rig.Must(t, quiet.Close())
	rig.Until(t, "none is told of", func() bool { return len(engine.Clients(1)) == 0 })
}
