package failurelog

import (
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneLinePerIntervalAndNothingUncounted_moby45152(t *testing.T) {
	var (
		client  = netip.MustParseAddrPort("192.0.2.1:1234")
		backend = netip.MustParseAddrPort("[2001:db8::1]:80")
	)
	const (
		dial   = "portsplice: dial: client 192.0.2.1:1234, backend [2001:db8::1]:80: connection refused"
		accept = "portsplice: accept: backend [2001:db8::1]:80: too many open files"
	)
	synctest.Test(t, func(t *testing.T) {
		j := make(journal)
		l := New(j)
		for range 1000 {
			l.Report("dial", client, backend, syscall.ECONNREFUSED)
		}
		j.reads(t, dial, 0)
		j.reads(t, dial+" (and 998 more failures since the last line)", Interval)
		j.readsNothing(t)
		l.Report("accept", netip.AddrPort{}, backend, syscall.EMFILE)
		l.Report("accept", netip.AddrPort{}, backend, syscall.EMFILE)
		j.reads(t, accept, 0)
		j.reads(t, accept, Interval)
		j.readsNothing(t)
	})
}

// journal is what a log writes to: whoever writes waits until it reads. Its clock is the bubble's.
type journal chan string

func (j journal) Write(line []byte) (int, error) {
	j <- string(line)
	return len(line), nil
}

// reads waits for a line, which must come after that time.
func (j journal) reads(t *testing.T, want string, after time.Duration) {
	t.Helper()
	begun := time.Now()
	line := <-j
	if took := time.Since(begun); line != want+"\n" || took != after {
		t.Errorf("got %q after %v; want %q after %v", line, took, want, after)
	}
}

// readsNothing waits for a line that must not come.
func (j journal) readsNothing(t *testing.T) {
	t.Helper()
	select {
	case line := <-j:
		t.Errorf("got %q, want no line", line)
	case <-time.After(2 * Interval):
	}
}

// TestJournalThatDoesNotRead: whoever reports a failure is not kept waiting, and what could not be written is counted.
func TestJournalThatDoesNotRead(t *testing.T) {
	backend := netip.MustParseAddrPort("192.0.2.1:80")
	synctest.Test(t, func(t *testing.T) {
		j := make(journal)
		l := New(j)
		for range 1000 {
			l.Report("dial", netip.AddrPort{}, backend, syscall.ECONNREFUSED) // in the test's own goroutine
		}
		<-time.After(time.Hour) // for which it does not read
		const line = "portsplice: dial: backend 192.0.2.1:80: connection refused"
		j.reads(t, line, 0)
		j.reads(t, line+" (and 998 more failures since the last line)", Interval)
		j.readsNothing(t)
	})
}
