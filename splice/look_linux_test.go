package splice

import (
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/connection"
)

// TestLookWhilePairsGo: a look that is interrupted goes on behind the pairs that have gone meanwhile.
func TestLookWhilePairsGo(t *testing.T) {
	l, port := testLoop(t, Options{}, linux{})
	l.Do(func() {
		s := l.share(port)
		pairs := make([]*pair, connection.LookAt+10)
		for i := range pairs {
			pairs[i] = &pair{client: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(1+i))}
			s.add(pairs[i])
		}
		told := connection.Busiest{Most: 2 * connection.LookAt}
		s.next = s.first
		if !s.look(&told) {
			t.Error("all pairs were looked at in one turn")
		}
		s.remove(pairs[9]) // which comes next: new ones come first
		s.remove(pairs[8])
		if s.look(&told) {
			t.Error("there is more after the end")
		}
		if len(told.All) != connection.LookAt+8 {
			t.Errorf("%d pairs were told of, want %d", len(told.All), connection.LookAt+8)
		}
		for s.first != nil {
			s.remove(s.first)
		}
	})
}
