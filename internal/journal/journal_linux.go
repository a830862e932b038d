package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Log writes lines. It may be used by any goroutine, from the first line on.
type Log struct {
	// Port is the published port, such as "0.0.0.0:80/tcp". It is set before any goroutine writes.
	Port string
	// JSON has lines on standard error be objects.
	JSON atomic.Bool

	stderr          int
	journal, syslog string // the sockets' paths

	closing sync.RWMutex // held while stderr is used
	closed  bool

	once sync.Once // for what follows
	null bool      // nobody can read stderr

	mu     sync.Mutex
	socket int // -1 until the first line, which it is opened for
}

// New makes a Log for this process's standard error. It opens nothing before the first line.
func New() *Log { return For(2) }

// For is New for the standard error of another process, a descriptor that Close will close.
func For(stderr int) *Log {
	return &Log{stderr: stderr, journal: "/run/systemd/journal/socket", syslog: "/dev/log", socket: -1}
}

// write writes to standard error. It waits for one that is not read.
func (l *Log) write(line []byte) error {
	l.closing.RLock()
	defer l.closing.RUnlock()
	if l.closed {
		return os.ErrClosed
	}
	_, err := unix.Write(l.stderr, line) // an os.File would take SIGPIPE for a reason to end
	return err
}

// PrintLast writes the error of a process that is about to end. It waits for a standard error that is not read for a
// second in all: whoever wants the process to end matters more.
func (l *Log) PrintLast(message string) {
	r := slog.NewRecord(time.Now(), slog.LevelError, message, 0)
	if l.unread() {
		_ = l.Handle(context.Background(), r) // there is nobody to tell
		return
	}
	line, _ := l.handler().line(context.Background(), r) // which has no attribute that could fail
	const atOnce = 4096                                  // a pipe that poll(2) calls writable has room for as much (PIPE_BUF, pipe(7))
	deadline := time.Now().Add(time.Second)
	for rest := line; len(rest) > 0; {
		ready := []unix.PollFd{{Fd: int32(l.stderr), Events: unix.POLLOUT}}
		n, err := unix.Poll(ready, int(max(0, time.Until(deadline).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		if n, err = unix.Write(l.stderr, rest[:min(len(rest), atOnce)]); err != nil {
			return
		}
		rest = rest[n:]
	}
}

// Close closes what the Log has open, once nobody waits for a standard error that is not read. What is written later is
// lost.
func (l *Log) Close() {
	l.closing.Lock()
	defer l.closing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unread() // so that nobody looks later
	l.closed = true
	_ = unix.Close(l.stderr) // nothing is left to be written
	if l.socket >= 0 {
		_ = unix.Close(l.socket)
	}
}

// unread says whether standard error is /dev/null.
func (l *Log) unread() bool {
	l.once.Do(func() {
		var st unix.Stat_t
		null := unix.Mkdev(1, 3) // Documentation/admin-guide/devices.txt
		if unix.Fstat(l.stderr, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			return
		}
		l.null = uint64(st.Rdev) == null //nolint:unconvert // mips has 32 bits for it
	})
	return l.null
}

// send gives a line to the journal or else to syslog. The error is why neither takes it.
func (l *Log) send(p priority, text string, fields []field) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	if l.socket < 0 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err // out of descriptors, perhaps; the next line tries again
		}
		l.socket = fd
	}
	// The path is resolved for each line: a journal that was restarted has a new socket.
	err := unix.Sendto(l.socket, l.entry(p, text, fields), 0, &unix.SockaddrUnix{Name: l.journal})
	if err == nil || errors.Is(err, unix.EAGAIN) { // the journal has /dev/log, too, and would lose the fields
		return err
	}
	return unix.Sendto(l.socket, l.syslogLine(p, text), 0, &unix.SockaddrUnix{Name: l.syslog})
}

// entry is a line in the journal's protocol.
func (l *Log) entry(p priority, text string, fields []field) (b []byte) {
	b = fmt.Appendf(b, "PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\n", p, name)
	if l.Port != "" {
		b = fmt.Appendf(b, "PORTSPLICE_PORT=%s\n", l.Port)
	}
	for _, f := range append(fields, field{"MESSAGE", text}) {
		// With its length before it, a value may have any bytes in it.
		b = append(append(b, f.name...), '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(f.value)))
		b = append(append(b, f.value...), '\n')
	}
	return b
}

// syslogLine is a line as syslog(3) writes it, of a daemon.
func (l *Log) syslogLine(p priority, text string) []byte {
	const daemon = 3 << 3 // LOG_DAEMON
	if l.Port != "" {
		text = l.Port + ": " + text
	}
	text = strings.ReplaceAll(text, "\n", "; ")
	return fmt.Appendf(nil, "<%d>%s %s[%d]: %s", daemon|int(p), time.Now().Format(time.Stamp), name, os.Getpid(), text)
}

// Stream opens a stream to the journal, for whoever writes lines without a Log, such as Go's runtime when it crashes. The
// file is the caller's to close. Nothing waits for a journal that does not read: what its buffer has no room for is lost.
func Stream(level slog.Level) (*os.File, error) {
	return stream("/run/systemd/journal/stdout", priorityOf(level))
}

func stream(path string, p priority) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// The runtime writes a trace in pieces of a few bytes, of which a usual buffer holds 278 (Linux 6.18), some 20
	// frames, and this one 21,846. Only root may have it.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		// See sd_journal_stream_fd(3): the identifier, no unit, the priority of all lines, that none begins with its own, and
		// that the journal is not to forward them to syslog, the kernel's log, or the console.
		_, err = unix.Write(fd, fmt.Appendf(nil, "%s\n\n%d\n0\n0\n0\n0\n", name, p))
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "connect", Path: path, Err: err}, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}
