package sctp

import (
	"errors"
	"os"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// dial begins the association to the backend.
func (p *pair) dial() {
	fd, err := p.begin()
	if err != nil {
		p.dialFailed(err)
		return
	}
	p.backend.fd = fd
	p.loop.own(&p.backend)
	// Epoll says EPOLLOUT when the association stands, or EPOLLERR (sctp_poll in net/sctp/socket.c). Of the client
	// nothing is wanted meanwhile, not even whether it is still there: its messages are.
	if err := p.backend.watchFor(unix.EPOLLOUT); err != nil {
		p.dialFailed(err)
		return
	}
	p.loop.alarms.set(&p.wake, p.loop.now()+p.loop.relay.timeout)
}

// begin opens the socket to the backend and begins to connect it.
func (p *pair) begin() (int, error) {
	family, to, err := sockaddr(p.loop.relay.backend)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = prepare(fd, offerFor(p.frontend.fd))
	if err == nil {
		err = unix.Connect(fd, to)
		if errors.Is(err, unix.EINPROGRESS) {
			return fd, nil
		}
		err = os.NewSyscallError("connect", err)
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// offerFor is what the backend is offered: the streams that the client has, in both directions.
func offerFor(client int) sctp.InitMsg {
	in, out, err := streams(client)
	if err != nil {
		// The client has come and gone, perhaps with messages on any stream left to be read.
		in, out = sctp.SCTP_MAX_STREAM, frontendStreams
	}
	return sctp.InitMsg{NumOstreams: in, MaxInstreams: out}
}

// dialReady takes an event of the backend's leg before the association stands.
func (p *pair) dialReady() {
	stands, err := connected(p.backend.fd)
	switch {
	case err != nil:
		p.dialFailed(os.NewSyscallError("connect", err))
	case stands:
		p.connected = true
		p.loop.alarms.stop(&p.wake)
		p.settle()
	}
}

// connected tells whether the association that connect began stands. It may stand no longer: getpeername answers
// all the same, and the reader of the leg will come to the end.
func connected(fd int) (bool, error) {
	if errno := pendingError(fd); errno != 0 {
		return false, errno
	}
	_, err := unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return false, nil // woken for nothing
	}
	return err == nil, err
}

// dialFailed ends a pair whose backend cannot be reached: the client is aborted.
func (p *pair) dialFailed(cause error) {
	p.cause = cause
	p.loop.relay.count.dialErrors.Add(1)
	p.loop.relay.complain("dial", p.frontend.peer, cause)
	p.end()
}
