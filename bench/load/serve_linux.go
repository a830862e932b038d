package load

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/status"
)

// server answers every message with one of the same length and number, and hands what is no message to the streams.
type server struct {
	*loop
	streams  streamServer
	listener int
}

// serve answers messages and datagrams and serves streams on one address, and counts datagrams on another, until the
// process is killed. It reports on descriptor 3, as proxies do, once all are served.
func serve(on, sink netip.AddrPort) error {
	ready := status.Adopt()
	l, err1 := newLoop()
	listener, err2 := listenTCP(on)
	echo, err3 := bindUDP(on)
	counted, err4 := bindUDP(sink)
	err := errors.Join(err1, err2, err3, err4)
	if err == nil {
		err = l.watch(listener, unix.EPOLLIN)
	}
	if err == nil {
		err = ready.Ready()
	}
	if err != nil {
		return err
	}
	s := &server{loop: l, listener: listener}
	ended := make(chan error)
	go func() { ended <- s.serve() }()
	go func() { ended <- echoDatagrams(echo) }()
	go func() { ended <- countDatagrams(counted, &s.streams.received) }()
	return <-ended
}

func (s *server) serve() error {
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
func (s *server) accept() error {
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
func (s *server) answer(c *conn) error {
	if !c.sending {
		done, err := s.read(c)
		if errors.Is(err, errStream) {
			return s.handOver(c)
		}
		if err != nil {
			return hangUp(c, err)
		}
		if !done {
			return nil
		}
		c.send(c.incoming)
	}
	if err := s.write(c); err != nil {
		return hangUp(c, err)
	}
	return nil
}

func hangUp(c *conn, why error) error {
	if !errors.Is(why, io.EOF) {
		// A reset tells the client that its message was not understood.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return os.NewSyscallError("close", unix.Close(c.fd))
}

// handOver makes a stream of a connection: the loop forgets it.
func (s *server) handOver(c *conn) error {
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, c.fd, nil); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	file := os.NewFile(uintptr(c.fd), "stream")
	stream, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil { // the stream has a copy
		return err
	}
	go s.streams.serve(stream, c.incoming[0], c.received)
	return nil
}

// maxDatagram is the largest payload of UDP over IPv4, and of the blocks that UDP_GRO and UDP_SEGMENT stand for.
const maxDatagram = 65_507

// echoDatagrams sends every datagram back to where it came from, in the length that it asks for.
func echoDatagrams(fd int) error {
	b := newBatch(64, maxDatagram).withNames()
	for {
		n, errno := receive(fd, b.messages, unix.MSG_WAITFORONE)
		if errno != 0 {
			return os.NewSyscallError("recvmmsg", errno)
		}
		for i, m := range b.messages[:n] {
			length := int(m.Len)
			if length >= askSize {
				length = int(binary.BigEndian.Uint16(b.buffers[i][answerAt:]))
			}
			b.iovecs[i].SetLen(min(length, maxDatagram))
		}
		if err := sendAll(fd, b.messages[:n]); err != nil {
			return err
		}
		for i := range n {
			b.iovecs[i].SetLen(maxDatagram)
		}
	}
}

// countDatagrams adds up the bytes that arrive. Blocks of datagrams arrive as they were sent where they are.
func countDatagrams(fd int, received *atomic.Int64) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		return os.NewSyscallError("setsockopt UDP_GRO", err)
	}
	b := newBatch(64, maxDatagram)
	for {
		n, errno := receive(fd, b.messages, unix.MSG_WAITFORONE)
		if errno != 0 {
			return os.NewSyscallError("recvmmsg", errno)
		}
		for _, m := range b.messages[:n] {
			received.Add(int64(m.Len))
		}
	}
}
