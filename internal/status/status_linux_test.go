package status

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// pipe gives a reader and a descriptor of the write end, which Adopt's Pipe will own.
func pipe(t *testing.T) (io.ReadCloser, int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "read"), fds[1]
}

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name   string
		report func(*Pipe) error
		want   string
	}{
		{"ready", (*Pipe).Ready, "0\n"},
		{"failed", func(p *Pipe) error { return p.Failed(errors.New("a reason")) }, "1\na reason\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			read, write := pipe(t)
			p := adopt(write)
			if flags, err := unix.FcntlInt(uintptr(write), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %#x, %v; want close-on-exec", flags, err)
			}
			if err := test.report(p); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(read) // to end of file: the pipe was closed
			if err := errors.Join(err, read.Close()); err != nil {
				t.Error(err)
			}
			if string(got) != test.want {
				t.Errorf("wrote %q, want %q", got, test.want)
			}
		})
	}
}

func TestNobodyReads(t *testing.T) {
	read, write := pipe(t)
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	if err := adopt(write).Ready(); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

// TestNotAPipe: what else may stand at the descriptor in a shell is left alone.
func TestNotAPipe(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	read, write := pipe(t)
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	both, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		fd   int
	}{
		{"a file", int(file.Fd())},
		{"a FIFO that can be read too", int(both.Fd())},
		{"a connection", sockets[0]},
		{"the read end", int(read.(*os.File).Fd())},
		{"nothing", 1 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := adopt(test.fd)
			if p != nil {
				t.Fatalf("adopted %+v", p)
			}
			if err := errors.Join(p.Ready(), p.Failed(errors.New("a reason"))); err != nil {
				t.Error(err)
			}
		})
	}
	// Nothing was written: what is closed now has nothing to read.
	err = errors.Join(unix.Close(sockets[0]), file.Close(), read.Close(), both.Close(), unix.Close(write))
	if err != nil {
		t.Error(err)
	}
	if n, err := unix.Read(sockets[1], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the connection's peer reads %d bytes, %v; want the end", n, err)
	}
	if err := unix.Close(sockets[1]); err != nil {
		t.Error(err)
	}
}
