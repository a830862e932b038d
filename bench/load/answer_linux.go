package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

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
	listener, err := listenTCP(on)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", on, err)
	}
	return &messageServer{loop: l, listener: listener}, l.watch(listener, unix.EPOLLIN)
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
