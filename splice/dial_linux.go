package splice

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/proxyheader"
	"github.com/portsplice/portsplice/internal/transparent"
	"github.com/portsplice/portsplice/internal/vanish"
)

// errSelfConnect: a connect from and to the same local port succeeds by TCP's simultaneous open when nobody
// listens there.
var errSelfConnect = errors.New("nobody listens: the connection had reached itself")

// setTCPOptions makes small messages leave at once and a peer be noticed that has vanished. Connections inherit the
// options of the listener that they were accepted on. All of them are better to have than not, and no kernel or sandbox that
// refuses a part, as WSL and gVisor do, is a reason not to serve a client.
func setTCPOptions(fd int, k net.KeepAliveConfig) {
	setNoDelay(fd)
	watchPeer(fd, k)
}

func setNoDelay(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// watchPeer has the kernel notice a peer that has vanished.
func watchPeer(fd int, k net.KeepAliveConfig) {
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.Idle)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(k.Interval)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		_ = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
	vanish.SetRetransmission(fd, k.Interval)
}

// seconds rounds up: zero is no time that the kernel would take.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// youth is how long a connection is young, at most: its backend's vanishing is not watched for. That takes five system
// calls, at 1.3 us each where a short connection takes some 100 us of CPU, and nothing comes of them for a second.
const youth = time.Second

// grow is a loop whose pairs are to be young no longer.
type grow loop

// Ring ends the youth of the loop's pairs.
func (g *grow) Ring(time.Duration) {
	for _, s := range g.shares {
		for p := s.first; p != nil && p.young; p = p.next { // behind those that were added last, none is
			p.young = false
			if fd := p.legs[back].fd; fd >= 0 {
				watchPeer(int(fd), p.settings.KeepAlive)
			}
		}
	}
}

// socket opens a socket for a connection to the backend. While there are many, its source port may be bound, by it or, once
// it is in TIME_WAIT, by a later one, and for that both need SO_REUSEADDR.
func (s *settings) socket(k kernel) (int, unix.Errno) {
	fd, errno := k.socket(s.address.family)
	if errno == 0 {
		setNoDelay(fd)
		if s.path != nil {
			if errno := transparent.Set(fd, s.address.family); errno != 0 {
				closeFD(fd)
				return -1, errno
			}
		}
		if s.sources.Reuse() {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // without it there are fewer ports to choose from
		}
	}
	return fd, errno
}

// socketAhead opens it before a client is accepted. The descriptor is -1 if there is none.
func (s *settings) socketAhead(k kernel) (int, unix.Errno) {
	if s.Dial != nil {
		return -1, 0
	}
	fd, errno := s.socket(k)
	if errno != 0 {
		fd = -1
	}
	return fd, errno
}

// place gives a connection, which has departed from the listener, to the loop that has the least to do.
func (p *Port) place(l *loop, c accepted) {
	to := l.Place()
	if to == l.Loop {
		l.dial(p, c)
		p.land()
		return
	}
	p.send(to, func(there *loop) { there.dial(p, c) }, func() { l.dial(p, c) })
}

// dial makes a pair of an accepted connection and starts to connect its backend, or to read the header of its client.
func (l *loop) dial(port *Port, c accepted) {
	p := &pair{settings: c.settings, client: c.client, failed: neither, first: neither, began: l.Now()}
	p.pumps[back].from = back
	p.legs[front].fd, p.legs[back].fd = int32(c.front), int32(c.back)
	l.share(port).add(p)
	add(&p.share.count.accepted, 1)
	p.accepted()
	if port.aborted.Load() {
		p.reset()
		return
	}
	if c.errno != 0 {
		p.dialFailed(sysError("socket", c.errno))
		return
	}
	if proxyheader.Trusted(p.settings.AcceptProxyProtocol, c.client.Addr()) {
		p.expect()
		return
	}
	p.dial()
}

// dial starts to connect the backend.
func (p *pair) dial() {
	p.on(clientKnown)
	source, err := p.settings.path.Source(p.client.Addr())
	if err != nil {
		p.withhold(err)
		return
	}
	connected, err := p.connect(source)
	if fd := p.legs[back].fd; fd >= 0 && !p.young { // it waited for a header meanwhile, and the socket is perhaps a new one
		watchPeer(int(fd), p.settings.KeepAlive)
	}
	switch {
	case err != nil:
		p.dialFailed(err)
	case connected:
		p.share.loop.StopTimer(&p.timer)
		p.dialed()
	default:
		p.await()
	}
}

// await has the pair wait for events, for as long as a dial may take, counted from accept.
func (p *pair) await() {
	if !p.timer.Set() {
		p.share.loop.SetTimer(&p.timer, p, p.share.loop.Now()+p.settings.DialTimeout)
	}
	if err := p.watch(); err != nil {
		p.unwatchable(err)
	}
}

// maxTries bounds the source ports that are tried for one connection.
const maxTries = 8

// connect starts to connect the backend's leg, from an address if it is valid. While there are very many connections from
// this host's own it chooses the source port itself, and so it does when the kernel has found none.
func (p *pair) connect(source netip.Addr) (connected bool, err error) {
	l, s, lg := p.share.loop, p.settings, &p.legs[back]
	switch {
	case s.Dial != nil:
		return p.connectBy(s.Dial)
	case source.IsValid(): // each has the whole range of ports for itself
		return l.startFrom(source, int(lg.fd), &s.address)
	}
	many := s.sources.Dial()
	bind, none := many && s.sources.KnowsSource(), false
	for range maxTries {
		fd := int(lg.fd)
		bound := bind && p.bind(fd)
		if none && !bound { // the kernel has looked through all ports, which takes it milliseconds where none is free
			continue
		}
		connected, err := l.start(fd, &s.address)
		switch {
		case !errors.Is(err, unix.EADDRNOTAVAIL):
			if bound {
				add(&p.share.count.sourcePorts, 1)
			} else if many && err == nil && l.kernel.getsockname(fd, &l.addresses[0]) == 0 {
				s.sources.SetSource(addrPort(&l.addresses[0]).Addr())
			}
			return connected, err
		case !bound: // the kernel has found no port
			s.sources.Exhausted()
			bind, none = true, true
		}
		// Or the port's connection still lives, or its TIME_WAIT may not be taken over. A socket that was bound stays
		// bound, so another takes its place.
		closeFD(fd)
		next, errno := s.socket(l.kernel)
		if lg.fd = int32(next); errno != 0 {
			lg.fd = -1
			return false, sysError("socket", errno)
		}
	}
	return l.start(int(lg.fd), &s.address) // the kernel may have one, after all
}

// connectBy has the user of the engine connect.
func (p *pair) connectBy(dial func(netip.AddrPort) (int, error)) (connected bool, err error) {
	fd, err := dial(p.settings.backend)
	if err != nil {
		return false, err
	}
	p.legs[back].fd = int32(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return false, sysError("fcntl", err)
	}
	unix.CloseOnExec(fd)
	setNoDelay(fd)
	return p.share.loop.kernel.getpeername(fd, &p.share.loop.addresses[0]) == 0, nil
}

// bind binds a socket to the port that has rested longest. It reports false when no port of a few was to be had: the
// kernel is to choose then.
func (p *pair) bind(fd int) bool {
	l, s := p.share.loop, p.settings
	for range maxTries {
		source := s.sources.Next()
		if source.Port() == 0 {
			return false
		}
		address := sourceAddress(source, s.address.family)
		switch l.kernel.bind(fd, &address) {
		case 0:
			return true
		case unix.EADDRNOTAVAIL:
			s.sources.SetSource(netip.Addr{})
		}
	}
	return false
}

// start starts to connect. A backend on this host answers while connect(2) runs, but a non-blocking connect says
// EINPROGRESS all the same: to ask spares a short connection a turn of the loop. (A second connect(2) would tell, too, but
// takes the error of a backend that has sent something and reset since.)
func (l *loop) start(fd int, to *sockaddr) (connected bool, err error) {
	switch errno := l.kernel.connect(fd, to); errno {
	case 0, unix.EISCONN:
		return true, nil
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR: // after EINTR too, the connection is being established
		return l.kernel.getpeername(fd, &l.addresses[0]) == 0, nil
	default:
		return false, sysError("connect", errno)
	}
}

// startFrom is start from an address that need not be one of this host's.
func (l *loop) startFrom(source netip.Addr, fd int, to *sockaddr) (connected bool, err error) {
	from := sourceAddress(netip.AddrPortFrom(source, 0), to.family)
	if errno := l.kernel.bind(fd, &from); errno != 0 {
		return false, sysError("bind", errno)
	}
	return l.start(fd, to)
}

// dialReady takes an event of a pair whose backend is not connected yet.
func (p *pair) dialReady(s side, events uint32) {
	l := p.share.loop
	if s == front {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			p.clientReset()
		}
		return
	}
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return
	}
	errno := l.kernel.pendingError(int(p.legs[back].fd))
	if errno != 0 && errno != unix.ECONNRESET && errno != unix.EPIPE {
		p.dialFailed(sysError("connect", errno))
		return
	}
	l.StopTimer(&p.timer)
	if errno == 0 {
		// The event may be of what the backend has said already, too: epoll does not tell again.
		if p.dialed(); p.state != closed {
			p.ready(back, events)
		}
		return
	}
	// It was connected, and has reset already; what it sent before is still to be had.
	p.on(backendConnected)
	p.fail(back, errno)
	p.read(back, true)
	p.settle()
}

// clientReset ends a pair whose client has gone before its backend was connected.
func (p *pair) clientReset() {
	add(&p.share.count.aborted, 1)
	p.closeFor(connection.End{By: connection.Client, Reason: connection.Reset})
}

// dialed begins to relay.
func (p *pair) dialed() {
	if p.connectedToItself() {
		p.dialFailed(errSelfConnect)
		return
	}
	p.on(backendConnected)
	registered := p.legs[front].handle.Registered()
	switch {
	case p.settings.ProxyProtocol == 0:
		p.read(front, registered) // a client has mostly sent its request by now
	case !p.introduce(!registered):
		p.share.loop.AtTurnEnd(p)
		return
	}
	p.begin()
}

// begin waits for events of both legs.
func (p *pair) begin() {
	// Of what is there or has happened before a leg is registered, epoll tells then.
	if err := p.watch(); err != nil {
		p.unwatchable(err)
		return
	}
	p.settle()
}

// dialFailed resets the client: a clean end would tell it that somebody had listened.
func (p *pair) dialFailed(err error) {
	p.share.count.dialErrors.Add(err)
	p.settings.Report("dial", p.client, p.settings.backend, err)
	p.legs[front].reset(p.share.loop)
	p.closeFor(connection.End{By: connection.Backend, Reason: connection.DialFailed, Err: err})
}

// withhold resets a client whose address the backend cannot be shown: to the backend it would look like this host.
func (p *pair) withhold(err error) {
	add(&p.share.count.sourceRefused, 1)
	p.settings.Report("transparent", p.client, p.settings.backend, err)
	p.legs[front].reset(p.share.loop)
	p.closeFor(connection.End{By: connection.Proxy, Reason: connection.SourceRefused, Err: err})
}

// connectedToItself is asked where it can happen: when the backend's address is one of this host's own.
func (p *pair) connectedToItself() bool {
	if !p.settings.local() {
		return false
	}
	l, fd := p.share.loop, int(p.legs[back].fd)
	own, peer := &l.addresses[0], &l.addresses[1]
	*own, *peer = unix.RawSockaddrAny{}, unix.RawSockaddrAny{}
	return l.kernel.getsockname(fd, own) == 0 && l.kernel.getpeername(fd, peer) == 0 && *own == *peer &&
		own.Addr.Family != unix.AF_UNIX // which has no names, mostly
}

// isLocal says whether an address is one of this host's own: only those can be bound to.
func isLocal(a netip.Addr) bool {
	address, err := newSockaddr(netip.AddrPortFrom(a, 0))
	if err != nil {
		return false
	}
	fd, err := unix.Socket(address.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // checking in vain costs little
	}
	defer closeFD(fd)
	return linux{}.bind(fd, &address) == 0
}
