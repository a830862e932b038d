package failurelog

import (
	"context"
	"log/slog"
	"maps"
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
		dial   = "dial: client 192.0.2.1:1234, backend [2001:db8::1]:80: connection refused"
		accept = "accept: backend [2001:db8::1]:80: too many open files"
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
type journal chan slog.Record

func (j journal) Enabled(context.Context, slog.Level) bool { return true }
func (j journal) WithAttrs([]slog.Attr) slog.Handler       { panic("unused") }
func (j journal) WithGroup(string) slog.Handler            { panic("unused") }
func (j journal) Handle(_ context.Context, r slog.Record) error {
	j <- r
	return nil
}

// reads waits for a line, which must come after that time.
func (j journal) reads(t *testing.T, want string, after time.Duration) {
	t.Helper()
	begun := time.Now()
	r := <-j
	if took := time.Since(begun); r.Message != want || r.Level != slog.LevelWarn || took != after {
		t.Errorf("got %q after %v; want %q after %v", r.Message, took, want, after)
	}
}

// readsNothing waits for a line that must not come.
func (j journal) readsNothing(t *testing.T) {
	t.Helper()
	select {
	case r := <-j:
		t.Errorf("got %q, want no line", r.Message)
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
		const line = "dial: backend 192.0.2.1:80: connection refused"
		j.reads(t, line, 0)
		j.reads(t, line+" (and 998 more failures since the last line)", Interval)
		j.readsNothing(t)
	})
}

// busy is a handler that takes every other line.
type busy struct {
	journal
	lines *int
}

func (b busy) Handle(ctx context.Context, r slog.Record) error {
	if *b.lines++; *b.lines%2 == 1 {
		return syscall.EAGAIN
	}
	return b.journal.Handle(ctx, r)
}

// TestJournalThatIsBusy: a line that it did not take is counted in the next.
func TestJournalThatIsBusy(t *testing.T) {
	client, backend := netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("192.0.2.1:80")
	synctest.Test(t, func(t *testing.T) {
		j := make(journal)
		l := New(busy{j, new(int)})
		for range 3 {
			l.Report("dial", client, backend, syscall.ECONNREFUSED)
		}
		r := <-j
		got := map[string]string{}
		r.Attrs(func(a slog.Attr) bool { got[a.Key] = a.Value.String(); return true })
		want := map[string]string{
			"operation": "dial", "client": client.String(), "backend": backend.String(), "error": "connection refused", "left_out": "2",
		}
		if !maps.Equal(got, want) {
			t.Errorf("the attributes are %v, want %v", got, want)
		}
		j.readsNothing(t)
	})
}
