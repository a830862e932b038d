package splice

import (
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/proxyheader"
)

// expect waits for the PROXY header that the client begins with.
func (p *pair) expect() {
	if p.readHeader(false); p.state == expecting {
		p.await()
	}
}

// headerReady takes an event of a pair whose client's header is not complete.
func (p *pair) headerReady(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		p.clientReset()
		return
	}
	p.readHeader(events&unix.EPOLLRDHUP != 0)
}

// readHeader takes the header from the socket, where it stays until it is complete, and dials.
func (p *pair) readHeader(ended bool) {
	l, fd := p.share.loop, int(p.legs[front].fd)
	n, errno := l.kernel.peek(fd, l.buffer[:proxyheader.Max])
	if errno != 0 && errno != unix.EAGAIN {
		p.clientReset()
		return
	}
	told, length, err := proxyheader.Parse(l.buffer[:n])
	switch {
	case err != nil:
	case length > 0:
		if n, errno := l.kernel.recv(fd, l.buffer[:length]); n < length { // which were all there
			err = sysError("recvfrom", errno)
		}
	case n == 0 && errno == 0: // it has come and gone, as health checks do
		p.closeFor(connection.End{By: connection.Client, Reason: connection.Closed})
		return
	case ended:
		err = proxyheader.ErrEnded
	default:
		return // its other bytes make an event
	}
	if err == nil && told.Client.IsValid() {
		err = p.settings.path.Told(told.Client.Addr())
	}
	if err != nil {
		p.refuse(err)
		return
	}
	if told.Client.IsValid() {
		p.client = told.Client
		if version := p.settings.ProxyProtocol; version != 0 {
			p.pumps[front].rest = told.Format(version)
		}
	}
	p.dial()
}

// refuse resets a client that has not begun with a header as it should be.
func (p *pair) refuse(err error) {
	add(&p.share.count.headersRefused, 1)
	p.settings.Report("proxy header", p.client, p.settings.backend, err)
	p.legs[front].reset(p.share.loop)
	p.closeFor(connection.End{By: connection.Client, Reason: connection.HeaderRefused, Err: err})
}

// TurnEnd introduces a client that had sent nothing yet when it was accepted. Its first bytes are mostly a moment away, and are to
// leave with the header, which by itself would wake the backend for nothing.
func (p *pair) TurnEnd() {
	if p.state == relaying { // it may have been closed since
		p.introduce(false)
		p.begin()
	}
}

// introduce tells the backend who the client is, and what that has sent by now. If it is to wait for that, it reports false
// when the client has sent nothing.
func (p *pair) introduce(wait bool) bool {
	pm, l := &p.pumps[front], p.share.loop
	header := pm.rest
	if header == nil { // the client has told no addresses
		own := proxyheader.Addresses{Client: p.client}
		if name := &l.addresses[0]; l.kernel.getsockname(int(p.legs[front].fd), name) == 0 {
			own.Frontend = addrPort(name)
		}
		header = own.Format(p.settings.ProxyProtocol)
	}
	pm.rest = nil
	v := pm.introduce(p.share, p.way(front), copy(l.buffer, header), wait)
	exhaust := p.legs[front].handle.Registered() // epoll has told what is beside bytes, and will not again
	switch {
	case v == awaitSource:
		pm.rest = header
		return false
	case v == more || v == drained && exhaust:
		p.read(front, exhaust)
	default:
		p.took(front, v)
	}
	return true
}
