package udp

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
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
			got := new(prober).faulty(err, 0, func() netip.Addr { return netip.MustParseAddr(c.source) },
				func() (netip.Addr, error) { return freshSource(backend) })
			if got != c.want {
				t.Errorf("faulty: %v, want %v", got, c.want)
			}
		})
	}
}

// A route that is missing is not looked for again with each datagram.
func TestMissingRouteIsProbedRarely(t *testing.T) {
	var p prober
	probes := 0
	here := netip.MustParseAddr("127.0.0.1")
	ask := func(now time.Duration) {
		if p.faulty(syscall.ENETUNREACH, now, func() netip.Addr { return here }, func() (netip.Addr, error) {
			probes++
			return here, nil
		}) {
			t.Error("faulty, with a source that is there")
		}
	}
	for now := range probePause {
		if now%time.Millisecond == 0 {
			ask(now)
		}
	}
	if probes != 1 {
		t.Errorf("%d probes, want 1", probes)
	}
	if ask(probePause); probes != 2 {
		t.Errorf("%d probes after the pause, want 2", probes)
	}
}
