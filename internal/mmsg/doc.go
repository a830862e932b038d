// Package mmsg receives and sends several messages by one call: recvmmsg(2) and sendmmsg(2), without waiting. The calls
// go by RawSyscall, which spares the Go scheduler's bookkeeping at entry and exit of each. EINTR never surfaces.
package mmsg
