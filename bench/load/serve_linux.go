package load

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/status"
)

// server answers every message with one of the same length and number, and hands what is no message to the streams.
type server struct {
	*loop
	streams  streams
	listener int
	lead     int // bytes of the PROXY header that connections begin with
}

// serve answers messages and datagrams and serves streams on one address, and counts datagrams on another, until the
// process is killed. With headers, connections are to begin with a PROXY header of version 2. It reports on descriptor 3, as
// proxies do, once all are served.
func serve(on, sink netip.AddrPort, headers bool) {
	ready := status.Adopt()
	s := &server{loop: newLoop(), listener: tcpSocket()}
	if headers {
		s.lead = proxyHeaderLength
	}
	set(s.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	listen(s.listener, on)
	s.add(s.listener, unix.EPOLLIN)
	echo, counted := bindUDP(on), bindUDP(sink)
	check(ready.Ready())
	ended := make(chan error)
	go func() { ended <- caught(s.serve) }()
	go func() { ended <- caught(func() { echoDatagrams(echo) }) }()
	go func() { ended <- caught(func() { countDatagrams(counted, &s.streams.received) }) }()
	check(<-ended)
}

func (s *server) serve() {
	for {
		for _, event := range s.wait(-1) {
			if fd := int(event.Fd); fd == s.listener {
				s.accept()
			} else {
				s.answer(s.byFD[fd])
			}
		}
	}
}

// accept takes one connection: the listener is level-triggered, and the next one makes it ready again.
func (s *server) accept() {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) // TCP_NODELAY is the listener's
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
		return
	}
	checkCall("accept4", err)
	s.add(fd, edges).lead = s.lead
}

// answer reads or writes as far as the kernel goes. Errors of a connection are the client's to report.
func (s *server) answer(c *conn) {
	var err error
	if !c.sending {
		var done bool
		if done, err = s.read(c); errors.Is(err, errStream) {
			s.handOver(c)
			return
		}
		if done {
			c.send(c.incoming)
		}
	}
	if c.sending {
		err = s.write(c)
	}
	if err == nil {
		return
	}
	if !errors.Is(err, io.EOF) {
		// A reset tells the client that its message was not understood.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	checkCall("close", unix.Close(c.fd))
}

// handOver makes a stream of a connection: the loop forgets it.
func (s *server) handOver(c *conn) {
	checkCall("epoll_ctl", unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, c.fd, nil))
	file := os.NewFile(uintptr(c.fd), "stream")
	stream := must(net.FileConn(file))
	check(file.Close()) // the stream has a copy
	go s.streams.serve(stream, c.incoming[0], c.received)
}
