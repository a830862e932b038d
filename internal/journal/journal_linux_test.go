package journal

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashJournal); path != "" {
		crash(path)
	}
	leakcheck.Main(m)
}

// unread makes a Log whose standard error is /dev/null, and whose sockets are in a fresh folder.
func unread(t *testing.T) *Log {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := New()
	l.stderr, l.journal, l.syslog = int(null.Fd()), filepath.Join(dir, "journal"), filepath.Join(dir, "log")
	t.Cleanup(func() {
		if l.socket >= 0 {
			if err := unix.Close(l.socket); err != nil {
				t.Error(err)
			}
		}
		if err := null.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// reader stands for a journal or a syslog.
func reader(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func read(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestJournal(t *testing.T) {
	l := unread(t)
	j := reader(t, l.journal)
	_, _ = fmt.Fprintln(l, "portsplice: before the port is known")
	want := "PRIORITY=4\nSYSLOG_IDENTIFIER=portsplice\nMESSAGE\n\x18\x00\x00\x00\x00\x00\x00\x00before the port is known\n"
	if got := read(t, j); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	l.Port = "[::]:80/tcp"
	l.Print(Info, "portsplice: two\nlines\n")
	want = "PRIORITY=6\nSYSLOG_IDENTIFIER=portsplice\nPORTSPLICE_PORT=[::]:80/tcp\nMESSAGE\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\n"
	if got := read(t, j); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestSyslog: where there is no journal, a line goes to syslog; to the journal again as soon as there is one.
func TestSyslog(t *testing.T) {
	l := unread(t)
	l.Port = "0.0.0.0:53/udp"
	s := reader(t, l.syslog)
	l.PrintLast("portsplice: one\ntwo\n")
	got := read(t, s)
	end := fmt.Sprintf(" portsplice[%d]: 0.0.0.0:53/udp: one; two", os.Getpid())
	stamp, hasEnd := strings.CutSuffix(got, end)
	stamp, hasPriority := strings.CutPrefix(stamp, "<27>")
	if _, err := time.Parse(time.Stamp, stamp); !hasEnd || !hasPriority || err != nil {
		t.Errorf("got %q, want <27>, a time and %q", got, end)
	}
	j := reader(t, l.journal)
	l.Print(Info, "hello\n")
	if got := read(t, j); !strings.Contains(got, "hello") {
		t.Errorf("the journal got %q", got)
	}
}

// TestNobodyReads: without a journal and a syslog, and with a journal that does not read, a line is lost and nobody
// waits.
func TestNobodyReads(t *testing.T) {
	l := unread(t)
	l.Print(Info, "nobody is there\n")
	reader(t, l.journal)
	for range 5000 { // more than a socket's queue holds (net.unix.max_dgram_qlen)
		if n, err := l.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
}

// TestStandardError: where it is anything else than /dev/null, lines go there and nowhere else.
func TestStandardError(t *testing.T) {
	l := unread(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	l.stderr = int(file.Fd())
	_, _ = l.Write([]byte("a\n"))
	l.Print(Info, "b\n")
	l.PrintLast("c\n")
	if got, err := os.ReadFile(file.Name()); string(got) != "a\nb\nc\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if l.socket >= 0 {
		t.Error("a socket was opened")
	}
}

// TestLastLineDoesNotWait: a pipe that nobody reads does not keep a process from ending.
func TestLastLineDoesNotWait(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	l := unread(t)
	l.stderr = int(w.Fd()) // which makes it blocking
	l.PrintLast(strings.Repeat("x", 1<<20))
	b := make([]byte, 1<<20)
	if n, err := r.Read(b); n < 4096 || err != nil {
		t.Errorf("%d bytes can be read, %v", n, err)
	}
}
