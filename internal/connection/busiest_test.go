package connection

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestBusiest compares what is kept with a sorted list, of connections of which some are told of twice.
func TestBusiest(t *testing.T) {
	for _, most := range []int{0, 1, 7, 200} {
		b := Busiest{Most: most}
		var all []Traffic
		for i := range 100 {
			c := Traffic{Address: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(1+i)), BytesIn: uint64(i), BytesOut: uint64(1000 * i)}
			all = append(all, c)
		}
		told := slices.Concat(all, all[20:40])
		rand.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
		for i, c := range told {
			if i%3 == 0 {
				b.Add(Traffic{Address: c.Address, BytesIn: c.BytesIn}) // before it has moved more
			}
			b.Add(c)
		}
		slices.SortFunc(all, func(x, y Traffic) int { return cmp.Compare(y.bytes(), x.bytes()) })
		addrs := gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
		if diff := gocmp.Diff(all[:min(most, len(all))], b.All, addrs); most > 0 && diff != "" || most == 0 && len(b.All) > 0 {
			t.Errorf("the %d busiest (-want +got):\n%s", most, diff)
		}
	}
}
