//go:build !linux

package udp

import "math"

// descriptorLimit is not asked for here: the table adapts when it meets the limit.
func descriptorLimit() int { return math.MaxInt }
