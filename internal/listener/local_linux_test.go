package listener

import (
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestLocal(t *testing.T) {
	host, other := rig.Namespace(t), rig.Namespace(t)
	rig.Must(t, netlab.Cable("veth", host, netip.MustParsePrefix("198.18.0.1/24"),
		other, netip.MustParsePrefix("198.18.0.2/24")))
	for a, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "198.18.0.1": true,
		"198.18.0.2": false, "198.18.0.3": false, "198.19.0.1": false, "fd00::1": false, "fe80::1%no-such": false,
	} {
		rig.Must(t, host.Do(func() error {
			if got := Local(netip.MustParseAddr(a)); got != want {
				t.Errorf("%s is an address of the host: %v", a, got)
			}
			return nil
		}))
	}
}
