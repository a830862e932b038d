package main

import (
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBlockedSignals: whoever starts the program may have blocked its signals, which a process inherits.
func TestBlockedSignals(t *testing.T) {
	args := arguments("tcp", freePort(t, "tcp", ours()), netip.AddrPortFrom(ours(), 1))
	var blocked, before unix.Sigset_t
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1} {
		blocked.Val[0] |= 1 << (s - 1)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, &before); err != nil {
			t.Fatal(err)
		}
		p := run{args: args}.start(t)
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
			t.Fatal(err)
		}
		if got := p.counters(t)["engine"]; got != "splice" {
			t.Errorf("the counters are of engine %q", got)
		}
		p.signalled(t, s)
	}
}
