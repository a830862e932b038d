package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/slogtest"
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

// entry takes a message of the journal's protocol apart.
func entry(t *testing.T, message string) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for message != "" {
		line, rest, _ := strings.Cut(message, "\n")
		name, value, plain := strings.Cut(line, "=")
		if !plain {
			n := binary.LittleEndian.Uint64([]byte(rest)[:8])
			value, rest = rest[8:8+n], rest[8+n+1:]
		}
		fields[name], message = value, rest
	}
	return fields
}

func TestJournal(t *testing.T) {
	l := unread(t)
	j := reader(t, l.journal)
	slog.New(l).Warn("before the port is known")
	want := "PRIORITY=4\nSYSLOG_IDENTIFIER=portsplice\nMESSAGE\n\x18\x00\x00\x00\x00\x00\x00\x00before the port is known\n"
	if got := read(t, j); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	l.Port = "[::]:80/tcp"
	l.JSON.Store(true)
	log := slog.New(l).With("engine", "splice").WithGroup("a").With("x", 1)
	log.Info("two\nlines", "client", netip.MustParseAddrPort("192.0.2.1:80"), "err-or", errors.New("bad\nthing"),
		slog.Group("g", "duration", 1.5), slog.Group("", "inline", true), "PORTSPLICE"+strings.Repeat("x", 100), "")
	log.Error("the same logger")
	fields := map[string]string{
		"PRIORITY": "6", "SYSLOG_IDENTIFIER": "portsplice", "PORTSPLICE_PORT": "[::]:80/tcp", "MESSAGE": "two\nlines",
		"PORTSPLICE_ENGINE": "splice", "PORTSPLICE_A_X": "1", "PORTSPLICE_A_CLIENT": "192.0.2.1:80",
		"PORTSPLICE_A_ERR_OR": "bad\nthing", "PORTSPLICE_A_G_DURATION": "1.5", "PORTSPLICE_A_INLINE": "true",
		("PORTSPLICE_A_PORTSPLICE" + strings.Repeat("X", 100))[:64]: "",
	}
	if got := entry(t, read(t, j)); !maps.Equal(got, fields) {
		t.Errorf("got  %q\nwant %q", got, fields)
	}
	fields = map[string]string{
		"PRIORITY": "3", "SYSLOG_IDENTIFIER": "portsplice", "PORTSPLICE_PORT": "[::]:80/tcp", "MESSAGE": "the same logger",
		"PORTSPLICE_ENGINE": "splice", "PORTSPLICE_A_X": "1",
	}
	if got := entry(t, read(t, j)); !maps.Equal(got, fields) {
		t.Errorf("got  %q\nwant %q", got, fields)
	}
	slog.New(l).Debug("which nobody asked for")
}

// TestSyslog: where there is no journal, a line goes to syslog; to the journal again as soon as there is one.
func TestSyslog(t *testing.T) {
	l := unread(t)
	l.Port = "0.0.0.0:53/udp"
	s := reader(t, l.syslog)
	l.PrintLast("one\ntwo")
	got := read(t, s)
	end := fmt.Sprintf(" portsplice[%d]: 0.0.0.0:53/udp: one; two", os.Getpid())
	stamp, hasEnd := strings.CutSuffix(got, end)
	stamp, hasPriority := strings.CutPrefix(stamp, "<27>")
	if _, err := time.Parse(time.Stamp, stamp); !hasEnd || !hasPriority || err != nil {
		t.Errorf("got %q, want <27>, a time and %q", got, end)
	}
	j := reader(t, l.journal)
	slog.New(l).Info("hello")
	if got := read(t, j); !strings.Contains(got, "hello") {
		t.Errorf("the journal got %q", got)
	}
}

// TestNobodyReads: without a journal and a syslog, and with a journal that does not read, a line is lost and nobody
// waits.
func TestNobodyReads(t *testing.T) {
	l := unread(t)
	handle := func() error {
		return l.Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, "nobody is there", 0))
	}
	if err := handle(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v; want %v", err, unix.ENOENT)
	}
	reader(t, l.journal)
	var err error
	for range 5000 { // more than a socket's queue holds (net.unix.max_dgram_qlen)
		err = handle()
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%v; want %v", err, unix.EAGAIN)
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
	slog.New(l).Warn("a", "client", "x")
	slog.New(l).With("y", 1).Info("b")
	l.PrintLast("c")
	const want = "portsplice: a\nportsplice: b\nportsplice: c\n"
	if got, err := os.ReadFile(file.Name()); string(got) != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if l.socket >= 0 {
		t.Error("a socket was opened")
	}
}

// TestJSON: the handler does what log/slog asks of one, and each line says which port it is of, the last one, too.
func TestJSON(t *testing.T) {
	l := unread(t)
	l.JSON.Store(true)
	var file *os.File
	t.Cleanup(func() { _ = file.Close() })
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		var err error
		if file, err = os.CreateTemp(t.TempDir(), ""); err != nil {
			t.Fatal(err)
		}
		l.stderr = int(file.Fd())
		return l
	}, func(t *testing.T) map[string]any {
		line, err := os.ReadFile(file.Name())
		fields := map[string]any{}
		if err = errors.Join(err, json.Unmarshal(line, &fields)); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return fields
	})
	l.Port = "0.0.0.0:80/tcp"
	var err error
	if file, err = os.CreateTemp(t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
	l.stderr = int(file.Fd())
	l.PrintLast("the end")
	line, err := os.ReadFile(file.Name())
	if want := `"level":"ERROR","msg":"the end","port":"0.0.0.0:80/tcp"}` + "\n"; !strings.HasSuffix(string(line), want) || err != nil {
		t.Errorf("got %q, %v; want ...%q", line, err, want)
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
