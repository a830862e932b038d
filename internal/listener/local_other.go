//go:build !linux

package listener

import "net/netip"

// Local is for Linux: elsewhere only the loopback addresses are known to be this host's.
func Local(a netip.Addr) bool { return a.IsLoopback() }
