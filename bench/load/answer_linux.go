package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/status"
)

// backlog is dockerd's: the bound is the kernel's, net.core.somaxconn.
const backlog = 1 << 16

// serve answers messages and streams until the process is killed. It reports on descriptor 3, as proxies do, once
// both are served.
func serve(messages, streams netip.AddrPort) error {
	ready := status.Adopt()
	s, err := listenStreams(streams)
	if err != nil {
		return err
	}
	m, err := listenMessages(messages)
	if err != nil {
		return err
	}
	if err := ready.Ready(); err != nil {
		return err
	}
	ended := make(chan error)
	go func() { ended <- s.serve() }()
	go func() { ended <- m.serve() }()
	return <-ended
}

// messageServer answers every message with one of the same length and number.
type messageServer struct {
	*loop
	listener int
}

func listenMessages(on netip.AddrPort) (*messageServer, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	listener, err := listen(on)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", on, err)
	}
	return &messageServer{loop: l, listener: listener}, l.watch(listener, unix.EPOLLIN)
}

func listen(on netip.AddrPort) (int, error) {
	fd, err := socket()
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt SO_REUSEADDR", err)
	}
	if err := unix.Bind(fd, sockaddr(on)); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

func (s *messageServer) serve() error {
	for {
		events, err := s.wait(-1)
		if err != nil {
			return err
		}
		for _, event := range events {
			if fd := int(event.Fd); fd == s.listener {
				err = s.accept()
			} else {
				err = s.answer(s.conns[fd])
			}
			if err != nil {
				return err
			}
		}
	}
}

// accept takes one connection: the listener is level-triggered, and the next one makes it ready again.
func (s *messageServer) accept() error {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) // TCP_NODELAY is the listener's
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("accept4", err)
	}
	_, err = s.add(fd)
	return err
}

// answer reads or writes as far as the kernel goes. Errors of a connection are the client's to report.
func (s *messageServer) answer(c *conn) error {
	if !c.sending {
		done, err := s.read(c)
		if err != nil {
			return s.hangUp(c, err)
		}
		if !done {
			return nil
		}
		c.send(c.incoming)
	}
	if err := s.write(c); err != nil {
		return s.hangUp(c, err)
	}
	return nil
}

func (s *messageServer) hangUp(c *conn, why error) error {
	if !errors.Is(why, io.EOF) {
		// A reset tells the client that its message was not understood.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return os.NewSyscallError("close", unix.Close(c.fd))
}
