package bench

import (
	"fmt"
	"time"
)

// Set is how much is measured.
type Set struct {
	Works  string        // as for Select
	Rounds int           // that count
	Time   time.Duration // how long traffic takes in a round
}

// sets by name. On two cores quick takes less than three minutes, and full about an hour.
var sets = map[string]Set{
	"full": {Rounds: 6, Time: 600 * time.Millisecond},
	"quick": {Rounds: 2, Time: 250 * time.Millisecond, Works: "pingpong/size=64/conns=1,pingpong/size=64/conns=64," +
		"pingpong/size=16384/conns=64,crr,bulk/direction=down/conns=8,bulk/direction=up/conns=1,idle/conns=2000,start," +
		"udp-echo/size=200/conns=64,udp-stream"},
}

// SetNamed gives a set.
func SetNamed(name string) (Set, error) {
	s, found := sets[name]
	if !found {
		return s, fmt.Errorf("no set is named %q; there are quick and full", name)
	}
	return s, nil
}
