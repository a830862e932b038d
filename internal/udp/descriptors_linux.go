package udp

import (
	"math"

	"golang.org/x/sys/unix"
)

// descriptorLimit is how many descriptors this process may have open.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt // the table adapts when it meets the limit: dial evicts
	}
	return int(min(limit.Cur, math.MaxInt))
}
