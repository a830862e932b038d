package budget

import (
	"math"

	"golang.org/x/sys/unix"
)

// Limit is how many descriptors this process may have open (RLIMIT_NOFILE).
func Limit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt // whoever asks adapts when it meets the limit
	}
	return int(min(limit.Cur, math.MaxInt))
}
