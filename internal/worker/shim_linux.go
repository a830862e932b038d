package worker

import (
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// shim is the connection to the process that stands for a port. It is on the event loop, as what it says comes once in days:
// two goroutines that waited, for it and for the port's end, had 5 of the 13 kB of an idle port.
type shim struct {
	loop *eventloop.Loop

	mu     sync.Mutex
	kept   bool
	early  string // what was told before
	fd     int    // -1: there is none
	handle eventloop.Handle
}

// keep takes the connection over from conn, which is the caller's to close, has its events told to h, and says the first
// word, with descriptors, and what was told before. Events wait until it is said.
func (s *shim) keep(conn *net.UnixConn, h eventloop.Handler, word string, rights []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.fd = true, -1
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	var failed error
	err = raw.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = os.NewSyscallError("fcntl", failed)
	}
	if err != nil {
		return err
	}
	if s.handle, err = s.loop.Listen(fd, unix.EPOLLIN, h); err == nil {
		if err = unix.Sendmsg(fd, []byte(word), rights, nil, unix.MSG_NOSIGNAL); err == nil {
			s.fd = fd
			s.send(s.early)
			return nil
		}
		s.loop.Unlisten(s.handle, fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// hear gives the next word. It is empty when the shim has closed the connection, or is gone, and ok is false if there is none yet.
func (s *shim) hear() (word string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 { // it could not be kept
		return "", false
	}
	var buffer [16]byte
	n, _, err := unix.Recvfrom(s.fd, buffer[:], unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR {
		return "", false
	}
	return string(buffer[:max(n, 0)]), true
}

// ignore has no more events told.
func (s *shim) ignore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loop.Unlisten(s.handle, s.fd)
}

// tell says a word, at once or after the first one, unless the connection is closed, or its queue is full.
func (s *shim) tell(word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kept {
		s.early = word
		return
	}
	s.send(word)
}

// send sends a word, if it is one; s.mu is held.
func (s *shim) send(word string) {
	if s.fd >= 0 && word != "" { // an empty message would be the end
		_ = unix.Send(s.fd, []byte(word), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
}

// close closes the connection, which tells the shim that all is done.
func (s *shim) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		closeAll([]int{s.fd})
		s.fd = -1
	}
}
