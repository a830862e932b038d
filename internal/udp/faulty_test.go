package udp

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
)

func TestFaulty(t *testing.T) {
	backend := addressOf(listen(t, "127.0.0.1"))
	for _, c := range []struct {
		name   string
		errno  syscall.Errno
		source string
		want   bool
	}{
		{"too large", syscall.EMSGSIZE, "", false},
		{"backend down", syscall.ECONNREFUSED, "", false},
		{"packet filter", syscall.EPERM, "", false},
		{"prohibited", syscall.EACCES, "", false},
		{"unreachable", syscall.EHOSTUNREACH, "", false},
		{"source gone", syscall.EINVAL, "", true},
		{"no route, a source that others have too", syscall.ENETUNREACH, "127.0.0.1", false},
		{"no route, a source that nobody has", syscall.ENETUNREACH, "192.0.2.1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := os.NewSyscallError("sendmmsg", c.errno)
			got := faulty(err, backend, func() netip.Addr { return netip.MustParseAddr(c.source) })
			if got != c.want {
				t.Errorf("faulty: %v, want %v", got, c.want)
			}
		})
	}
}
