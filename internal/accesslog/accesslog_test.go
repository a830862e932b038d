package accesslog

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// reader is what a log writes to: whoever writes waits until it reads, or hears at once that it is busy.
type reader struct {
	lines chan slog.Record
	busy  atomic.Bool
}

func newReader() *reader { return &reader{lines: make(chan slog.Record)} }

func (r *reader) Enabled(context.Context, slog.Level) bool { return true }
func (r *reader) WithAttrs([]slog.Attr) slog.Handler       { panic("unused") }
func (r *reader) WithGroup(string) slog.Handler            { panic("unused") }
func (r *reader) Handle(_ context.Context, line slog.Record) error {
	if r.busy.Load() {
		return syscall.EAGAIN
	}
	r.lines <- line
	return nil
}

// ended is a connection that has.
func ended(port uint16) connection.Connection {
	return connection.Connection{
		Phase:  connection.Ended,
		Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port), Backend: netip.MustParseAddrPort("172.17.0.2:80"),
		Dial: time.Millisecond, Lasted: 1500 * time.Millisecond, FromClient: 10, FromBackend: 20,
		End: connection.End{By: connection.Client, Reason: connection.Closed},
	}
}

func TestLine(t *testing.T) {
	r := newReader()
	l := New("0.0.0.0:80/tcp", r)
	attributes := map[string]string{
		"operation": "access", "client": "192.0.2.1:1234", "backend": "172.17.0.2:80", "received_bytes": "10", "sent_bytes": "20",
		"connect_seconds": "0.001", "duration_seconds": "1.5", "ended_by": "client", "reason": "closed",
	}
	for _, phase := range []connection.Phase{connection.Accepted, connection.Connected} {
		l.Observe(connection.Connection{Phase: phase})
	}
	failed := ended(1234)
	failed.End = connection.Failure(connection.Backend, syscall.ETIMEDOUT)
	for _, test := range []struct {
		connection connection.Connection
		text       string
		attributes map[string]string
	}{
		{ended(1234), "ended by client: closed", attributes},
		{failed, "ended by backend: timeout: connection timed out", with(attributes, "ended_by", "backend", "reason", "timeout",
			"error", "connection timed out")},
	} {
		l.Observe(test.connection)
		line := <-r.lines
		want := "access: client 192.0.2.1:1234, frontend 0.0.0.0:80/tcp, backend 172.17.0.2:80, 10 bytes in, 20 bytes out, 1.5s, " + test.text
		got := map[string]string{}
		line.Attrs(func(a slog.Attr) bool { got[a.Key] = a.Value.String(); return true })
		if line.Message != want || line.Level != slog.LevelInfo || !maps.Equal(got, test.attributes) {
			t.Errorf("got  %q, %v\nwant %q, %v", line.Message, got, want, test.attributes)
		}
	}
	l.Close()
}

func with(m map[string]string, pairs ...string) map[string]string {
	m = maps.Clone(m)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// TestReaderThatDoesNotRead: whoever ends a connection does not wait, what is held is bounded, and each connection has a
// line or is counted.
func TestReaderThatDoesNotRead(t *testing.T) {
	const connections = 5000
	synctest.Test(t, func(t *testing.T) {
		r := newReader()
		l := New("0.0.0.0:80/tcp", r)
		l.Observe(ended(0))
		synctest.Wait() // the line is about to be written
		for i := range connections {
			l.Observe(ended(uint16(1 + i)))
		}
		if got := l.Dropped(); got != connections-waiting {
			t.Errorf("%d are dropped, want %d", got, connections-waiting)
		}
		var lines int
		for range 1 + waiting + 1 {
			line := <-r.lines
			if strings.HasPrefix(line.Message, "access: client") {
				lines++
			} else if want := fmt.Sprintf("access: connections left out since the last line: %d", connections-waiting); line.Message != want {
				t.Errorf("got %q, want %q", line.Message, want)
			}
		}
		if lines != 1+waiting {
			t.Errorf("%d lines, want %d", lines, 1+waiting)
		}
		l.Close()
	})
}

// TestJournalThatIsBusy: a line waits for a while, and is counted if that was in vain. At the port's end nothing waits.
func TestJournalThatIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader()
		l := New("0.0.0.0:80/tcp", r)
		r.busy.Store(true)
		l.Observe(ended(1))
		<-time.After(patience / 2)
		r.busy.Store(false)
		if line := <-r.lines; !strings.Contains(line.Message, "client 192.0.2.1:1,") {
			t.Errorf("got %q, want the connection", line.Message)
		}
		synctest.Wait()
		r.busy.Store(true)
		l.Observe(ended(2))
		<-time.After(10 * patience)
		if l.Dropped() != 1 {
			t.Errorf("%d are dropped, want 1", l.Dropped())
		}
		r.busy.Store(false)
		l.Observe(ended(3))
		<-r.lines
		if line := <-r.lines; line.Message != "access: connections left out since the last line: 1" {
			t.Errorf("got %q, want one left out", line.Message)
		}
		synctest.Wait()
		r.busy.Store(true)
		l.Observe(ended(4))
		begun := time.Now()
		l.Close()
		if took := time.Since(begun); took > patience || l.Dropped() != 2 {
			t.Errorf("the end took %v, %d are dropped; want 2", took, l.Dropped())
		}
		l.Observe(ended(5)) // nobody should
		if l.Dropped() != 3 {
			t.Errorf("%d are dropped after the end, want 3", l.Dropped())
		}
	})
}
