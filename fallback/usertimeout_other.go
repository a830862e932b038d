//go:build !linux

package fallback

import (
	"net"
	"time"
)

// setUserTimeout is for Linux.
func setUserTimeout(*net.TCPConn, time.Duration) {}

// bearWith is for a bound that only Linux has.
func (lg *leg) bearWith(time.Duration) {}
