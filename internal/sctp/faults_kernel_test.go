//go:build linux && sctp_kernel

package sctp

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/dialerror"
)

// TestRefusedBackend: the client is aborted when nobody listens. Public issue: moby#16976.
func TestRefusedBackend(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			backend, addr := listen(t, host, 10)
			backend.close()
			relay := startRelay(t, "127.0.0.1", addr, Options{})
			newPeer(t, unix.AF_INET, 10).expectRefusal(relay.addr)
			relay.expectReport(t, "dial", unix.ECONNREFUSED)
			relay.expectStats(t, Stats{Accepted: 1, Counts: dialerror.Counts{DialErrors: 1, DialRefused: 1}})
		})
	}
}

// expectRefusal opens an association that is aborted, perhaps so soon that connect is still waiting.
func (p *peer) expectRefusal(addr netip.AddrPort) {
	p.t.Helper()
	err := p.connect(addr)
	if errors.Is(err, unix.ECONNREFUSED) {
		return
	}
	p.must("connect", err)
	p.expectEnd(unix.ECONNRESET)
}

// TestSilentBackend: the client is aborted when the backend does not answer in time.
func TestSilentBackend(t *testing.T) {
	const timeout = 200 * time.Millisecond
	backend, addr := listen(t, "127.0.0.1", 10)
	backend.deafen()
	relay := startRelay(t, "127.0.0.1", addr, Options{DialTimeout: timeout})
	start := time.Now()
	client := dial(t, relay.addr, 10)
	client.expectEnd(unix.ECONNRESET)
	if took := time.Since(start); took < timeout || took > timeout+patienceOfPeers/2 {
		t.Errorf("the client was aborted after %v; want %v", took, timeout)
	}
	relay.expectReport(t, "dial", os.ErrDeadlineExceeded)
	relay.expectStats(t, Stats{Accepted: 1, Counts: dialerror.Counts{DialErrors: 1, DialTimeouts: 1}})
}

// TestDialBehindStandstill: a backend that has answered while the process stood still (SIGSTOP, a frozen cgroup) is served,
// although the dial's time is over.
func TestDialBehindStandstill(t *testing.T) {
	const timeout = 500 * time.Millisecond
	hurry(t) // the backend's kernel hears of the association when ours repeats itself
	backend, addr := listen(t, "127.0.0.1", 10)
	backend.deafen()
	relay := startRelay(t, "127.0.0.1", addr, Options{DialTimeout: timeout})
	client := dial(t, relay.addr, 10)
	relay.expectStats(t, Stats{Accepted: 1, Active: 1})
	begun := time.Now()
	goOn := relay.standStill(t)
	backend.must("SO_DETACH_FILTER", unix.SetsockoptInt(backend.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	server := backend.accept()
	<-time.After(timeout - time.Since(begun) + 100*time.Millisecond)
	goOn()
	m := newParcel(10, 0)
	client.send(m)
	server.expect(m)
	relay.expectStats(t, Stats{Accepted: 1, Active: 1, MessagesIn: 1, BytesIn: 10})
}

// deafen makes the kernel drop every packet that comes for the socket.
func (p *peer) deafen() {
	p.t.Helper()
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	p.must("SO_ATTACH_FILTER", unix.SetsockoptSockFprog(p.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]}))
}

// TestAbortWhileDialing: Abort does not wait for a backend that does not answer.
func TestAbortWhileDialing(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	backend.deafen()
	relay := startRelay(t, "127.0.0.1", addr, Options{DialTimeout: time.Hour})
	client := dial(t, relay.addr, 10)
	relay.expectStats(t, Stats{Accepted: 1, Active: 1})
	relay.Abort()
	client.expectEnd(unix.ECONNRESET)
}

// TestTooLarge: a message that the relay will not hold ends the pair.
func TestTooLarge(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		go func() { _ = near.trySend(newParcel(maxMessage+1, 0), true) }() // the abort may come meanwhile
		far.expectEnd(unix.ECONNRESET)
		relay.expectReport(t, "relay", unix.EMSGSIZE)
		expectIdle(t, relay)
	})
}

// TestNoDescriptors: without descriptors the relay waits, does not spin, and goes on when there are some.
// Public issue: moby#6402, an accept error that ends docker-proxy.
func TestNoDescriptors(t *testing.T) {
	const failures = 5 // with pauses of 5, 10, 20 and 40 ms between them
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	client := newPeer(t, unix.AF_INET, 10)

	allow := relay.limitDescriptors(t, 0)
	start := time.Now()
	client.must("connect", client.connect(relay.addr))
	eventually(t, func() bool { return relay.Stats().AcceptErrors >= failures },
		func() string { return "accept did not fail" })
	if took := time.Since(start); took < 75*time.Millisecond {
		t.Errorf("%d attempts to accept within %v", failures, took)
	}
	allow()
	relay.expectReport(t, "accept", unix.EMFILE)

	server := backend.accept()
	m := newParcel(10, 0)
	client.send(m)
	server.expect(m)
	client.close()
	server.expectEnd(io.EOF)
}

// TestNoDescriptorForBackend: a client that was accepted with the last descriptor is served when there is another, and
// aborted when there is none within the dial timeout.
func TestNoDescriptorForBackend(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{DialTimeout: patienceOfPeers / 2})
	client := newPeer(t, unix.AF_INET, 10)
	allow := relay.limitDescriptors(t, 1)
	client.must("connect", client.connect(relay.addr))
	eventually(t, func() bool { return relay.Stats().Accepted == 1 }, func() string { return "the client was not accepted" })
	allow()
	server := backend.accept()
	m := newParcel(10, 0)
	client.send(m)
	server.expect(m)

	relay.SetOptions(Options{DialTimeout: 50 * time.Millisecond, Report: relay.settings.Load().Report})
	client = newPeer(t, unix.AF_INET, 10)
	allow = relay.limitDescriptors(t, 1)
	client.expectRefusal(relay.addr)
	allow()
	relay.expectReport(t, "dial", unix.EMFILE)
}

// limitDescriptors leaves the process the given number of descriptors, until the end of the test or the call of
// allow. Nothing else may open or close one meanwhile: not the loop, which has a duplicate while it rests, and not even
// accept4, which takes one before it looks for a client. So the loop stands still.
func (r *rig) limitDescriptors(t *testing.T, more int) (allow func()) {
	t.Helper()
	defer r.standStill(t)()
	next, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // the lowest number that is free
	if err == nil {
		err = unix.Close(next)
	}
	var before unix.Rlimit
	if err == nil {
		err = unix.Getrlimit(unix.RLIMIT_NOFILE, &before)
	}
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + more), Max: before.Max})
	}
	if err != nil {
		t.Fatal(err)
	}
	allow = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(allow)
	return allow
}
