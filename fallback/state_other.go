//go:build !linux

package fallback

import "net"

// unacknowledged cannot be asked portably. One byte is assumed to be under way, so that a reset waits out
// flushTimeout rather than throwing away what was delivered.
func unacknowledged(*net.TCPConn) int { return 1 }

// gone cannot be asked portably. A reset that surfaced at a write at the very moment of a read may pass as an
// end of file here.
func gone(*net.TCPConn) bool { return false }

// readNow cannot be asked portably.
func readNow(*net.TCPConn, []byte) (int, error) { return 0, nil }

// boundRetransmission is for Linux.
func boundRetransmission(*net.TCPConn, net.KeepAliveConfig) {}
