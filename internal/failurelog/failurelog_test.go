package failurelog

import (
	"bufio"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOneLinePerIntervalAndNothingUncounted_moby45152(t *testing.T) {
	var (
		client  = netip.MustParseAddrPort("192.0.2.1:1234")
		backend = netip.MustParseAddrPort("[2001:db8::1]:80")
	)
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := New(&out)
		for range 1000 {
			l.Report("dial", client, backend, syscall.ECONNREFUSED)
		}
		time.Sleep(Interval + 1) // the bubble's clock
		synctest.Wait()
		time.Sleep(Interval)
		l.Report("accept", netip.AddrPort{}, backend, syscall.EMFILE)
		l.Report("accept", netip.AddrPort{}, backend, syscall.EMFILE)
		time.Sleep(2 * Interval)
		synctest.Wait()
		want := []string{
			"portsplice: dial: client 192.0.2.1:1234, backend [2001:db8::1]:80: connection refused",
			"portsplice: dial: client 192.0.2.1:1234, backend [2001:db8::1]:80: connection refused (and 998 more failures since the last line)",
			"portsplice: accept: backend [2001:db8::1]:80: too many open files",
			"portsplice: accept: backend [2001:db8::1]:80: too many open files",
			"",
		}
		if diff := cmp.Diff(want, strings.Split(out.String(), "\n")); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// TestJournalThatDoesNotRead: whoever reports a failure is not kept waiting, and what could not be written is counted.
func TestJournalThatDoesNotRead(t *testing.T) {
	backend := netip.MustParseAddrPort("192.0.2.1:80")
	synctest.Test(t, func(t *testing.T) {
		read, written := io.Pipe()
		l := New(written)
		for range 1000 {
			l.Report("dial", netip.AddrPort{}, backend, syscall.ECONNREFUSED) // in the test's own goroutine
		}
		time.Sleep(time.Hour) // the bubble's clock
		lines := bufio.NewReader(read)
		for _, want := range []string{
			"portsplice: dial: backend 192.0.2.1:80: connection refused\n",
			"portsplice: dial: backend 192.0.2.1:80: connection refused (and 998 more failures since the last line)\n",
		} {
			if line, err := lines.ReadString('\n'); err != nil || line != want {
				t.Errorf("got %q, %v; want %q", line, err, want)
			}
		}
		time.Sleep(2 * Interval)
	})
}
