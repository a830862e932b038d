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

// What only the host itself can have answered, as it did so twice, costs one send for a while; what a backend's host may
// answer to each datagram costs the second one always.
func TestSecondTry(t *testing.T) {
	for _, c := range []struct {
		first, second syscall.Errno
		again         bool // in the pause
	}{
		{syscall.EHOSTUNREACH, syscall.EHOSTUNREACH, false},
		{syscall.ENETUNREACH, syscall.ENETUNREACH, false},
		{syscall.EACCES, syscall.EACCES, false},
		{syscall.EHOSTUNREACH, syscall.ENETUNREACH, true},
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED, true},
		{syscall.EMSGSIZE, syscall.EMSGSIZE, true},
	} {
		first, second := os.NewSyscallError("sendmmsg", c.first), os.NewSyscallError("sendmmsg", c.second)
		var p prober
		expect := func(err error, now time.Duration, want bool) {
			t.Helper()
			if got := p.maybeOfAnother(err, now); got != want {
				t.Errorf("%v, then %v; %v at %v is worth a second try: %v, want %v", c.first, c.second, err, now, got, want)
			}
		}
		expect(first, 0, true)
		p.failedAgain(first, second, 0)
		expect(first, probePause-1, c.again)
		expect(syscall.ECONNREFUSED, 1, true)
		expect(first, probePause, true)
	}
	var p prober
	if p.maybeOfAnother(syscall.EPERM, 0) {
		t.Error("EPERM, which no ICMP brings, is worth a second try")
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
