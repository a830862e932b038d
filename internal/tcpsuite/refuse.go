package tcpsuite

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// failure is what an engine reported.
type failure struct {
	op              string
	client, backend netip.AddrPort
	err             error
}

// reports collects what an engine reports.
type reports struct {
	mu  sync.Mutex
	all []failure
}

func (r *reports) add(op string, client, backend netip.AddrPort, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, failure{op, client, backend, err})
}

func (r *reports) get() []failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]failure(nil), r.all...)
}

// backendRefuses: the client sees a reset rather than a clean end, and the report names everything.
func backendRefuses(t *testing.T, e Engine) {
	closed := closedPort(t)
	var reported reports
	p := startWith(t, e, Options{Report: reported.add}, closed)
	// The reset may be as fast as the client's own dial.
	if n, err := request(p.Addr, 1); n != 0 || !isReset(err) {
		t.Errorf("the client read %d bytes and %v, want a reset", n, err)
	}
	rig.Until(t, "the pair ends", func() bool { s := p.Stats(); return s.Accepted == 1 && s.Active == 0 })
	if s := p.Stats(); s.DialErrors != 1 || s.DialRefused != 1 {
		t.Errorf("%d dial errors are counted, and %d refusals, want 1", s.DialErrors, s.DialRefused)
	}
	all := reported.get()
	if len(all) != 1 {
		t.Fatalf("%d failures are reported, want 1: %v", len(all), all)
	}
	f := all[0]
	if f.op != "dial" || !f.client.Addr().IsLoopback() || f.backend != closed || !errors.Is(f.err, syscall.ECONNREFUSED) {
		t.Errorf("reported %+v; want a dial from loopback to %v, refused", f, closed)
	}
}

// backendUnreachable: a dial that fails at once, because there is no way to the address, is a failed dial like any
// other.
func backendUnreachable(t *testing.T, e Engine) {
	var reported reports
	p := startWith(t, e, Options{Report: reported.add}, netip.MustParseAddrPort("255.255.255.255:80"))
	for range 100 { // whatever descriptors they have
		if n, err := request(p.Addr, 1); n != 0 || !isReset(err) {
			t.Fatalf("the client read %d bytes and %v, want a reset", n, err)
		}
	}
	rig.Until(t, "the pairs end", func() bool { s := p.Stats(); return s.Accepted == 100 && s.Active == 0 })
	if s := p.Stats(); s.DialErrors != 100 || len(reported.get()) != 100 {
		t.Errorf("%d dial errors are counted and %d reported, want 100", s.DialErrors, len(reported.get()))
	}
}

// closedPort is a port that nobody listens on, and nobody else is given until the test ends.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	rig.Must(t, err)
	t.Cleanup(func() { rig.Check(t, syscall.Close(fd)) })
	rig.Must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: rig.Loopback.As4()}))
	name, err := syscall.Getsockname(fd)
	rig.Must(t, err)
	return netip.AddrPortFrom(rig.Loopback, uint16(name.(*syscall.SockaddrInet4).Port))
}
