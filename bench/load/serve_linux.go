package load

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
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
// process is killed. It reports on descriptor 3, as proxies do, once all are served.
func serve(r request) values {
	ready := status.Adopt()
	s := &server{loop: newLoop(), listener: tcpSocket()}
	if r.headers {
		s.lead = proxyHeaderLength
	}
	set(s.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	listen(s.listener, r.on)
	s.add(s.listener, unix.EPOLLIN)
	echo, counted := bindUDP(r.on), bindUDP(r.sink)
	failure.Check(ready.Ready())
	ended := make(chan error)
	go func() { ended <- failure.Caught(s.serve) }()
	go func() { ended <- failure.Caught(func() { echoDatagrams(echo) }) }()
	go func() { ended <- failure.Caught(func() { countDatagrams(counted, &s.streams.received) }) }()
	failure.Check(<-ended)
	return nil
}

func (s *server) serve() {
	for {
		for _, event := range s.wait(patience) { // and again
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
	done, err := s.step(c)
	if done {
		c.send(c.incoming)
		err = s.write(c)
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, errStream):
		s.handOver(c)
		return
	case !errors.Is(err, io.EOF):
		// A reset tells the client that its message was not understood.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	checkCall("close", unix.Close(c.fd))
}

// handOver makes a stream of a connection: the loop forgets it.
func (s *server) handOver(c *conn) {
	checkCall("epoll_ctl", unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, c.fd, nil))
	file := os.NewFile(uintptr(c.fd), "stream")
	stream := failure.Must(net.FileConn(file))
	failure.Check(file.Close()) // the stream has a copy
	go s.streams.serve(stream, c.incoming[0], c.received)
}
