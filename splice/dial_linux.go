package splice

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// errSelfConnect: a connect from and to the same local port succeeds by TCP's simultaneous open when nobody
// listens there.
var errSelfConnect = errors.New("nobody listens: the connection had reached itself")

// setTCPOptions makes small messages leave at once and a vanished peer be noticed. Connections inherit the
// options of the listener that they were accepted on.
func setTCPOptions(fd int, k net.KeepAliveConfig) error {
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.Idle)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(k.Interval)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count},
	} {
		err := unix.SetsockoptInt(fd, o.level, o.name, o.value)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("setsockopt: %w", err) // an MPTCP socket of an older kernel knows fewer options
		}
	}
	return nil
}

// seconds rounds up: zero is no time that the kernel would take.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// backendSocket opens a socket for a connection to the backend.
func (p *Port) backendSocket(k kernel) (int, error) {
	fd, errno := k.socket(p.address.family)
	if errno != 0 {
		return -1, sysError("socket", errno)
	}
	if err := setTCPOptions(fd, p.engine.options.KeepAlive); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// dial makes a pair of an accepted connection and an unconnected socket, and starts to connect.
func (a *acceptor) dial(front, back int, client netip.AddrPort) {
	now := a.loop.now()
	back, connected, err := a.connect(back, now)
	pr := newPair(a.loop, a.port, front, back, client)
	switch {
	case err != nil:
		pr.dialFailed(err)
	case connected:
		pr.dialed()
	default:
		pr.deadline = now + a.loop.options.DialTimeout
		a.loop.dialing.add(pr)
		pr.settle()
	}
}

// connect starts to connect fd, or another socket in its place, and gives the one.
func (a *acceptor) connect(fd int, now time.Duration) (socket int, connected bool, err error) {
	if !a.sources.use(now) || !a.sources.bind(fd, a.port.address.family) {
		connected, err = startConnect(fd, &a.port.address)
		return fd, connected, err
	}
	connected, err = startConnect(fd, &a.port.address)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		a.loop.stats.sourcePorts.Add(1)
		return fd, connected, err
	}
	// The port's connection still lives, or its TIME_WAIT may not be taken over. A bound socket stays bound, so
	// the kernel chooses for a new one.
	closeFD(fd)
	if fd, err = a.port.backendSocket(a.loop.kernel); err != nil {
		return -1, false, err
	}
	connected, err = startConnect(fd, &a.port.address)
	return fd, connected, err
}

// startConnect starts to connect. A backend on this host answers while connect(2) runs, but a non-blocking connect
// says EINPROGRESS all the same: a second call tells, and spares a short connection a turn of the loop and five calls.
func startConnect(fd int, to *sockaddr) (connected bool, err error) {
	errno := connect(fd, to)
	if errno == unix.EINPROGRESS {
		errno = connect(fd, to)
	}
	switch errno {
	case 0, unix.EISCONN:
		return true, nil
	case unix.EALREADY, unix.EINTR: // after EINTR too, the connection is being established
		return false, nil
	}
	return false, sysError("connect", errno)
}

// dialReady takes an event of a pair whose backend is not connected yet.
func (p *pair) dialReady(lg *leg, events uint32) {
	if lg == &p.front {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 { // the client has reset
			p.loop.stats.aborted.Add(1)
			p.close()
		}
		return
	}
	errno := pendingError(p.back.fd)
	if errno != 0 && errno != unix.ECONNRESET && errno != unix.EPIPE {
		p.dialFailed(sysError("connect", errno))
		return
	}
	p.leave()
	if errno == 0 {
		p.dialed()
		return
	}
	// It was connected, and has reset already; what it sent before is still to be had.
	p.connected = true
	p.fail(&p.back, errno)
	p.run(&p.down)
	p.settle()
}

// dialed begins to relay.
func (p *pair) dialed() {
	if p.connectedToItself() {
		p.dialFailed(errSelfConnect)
		return
	}
	p.connected = true
	p.run(&p.up) // a client has mostly sent its request by now
	p.settle()
}

// dialFailed resets the client: a clean end would tell it that somebody had listened.
func (p *pair) dialFailed(err error) {
	p.loop.stats.dialErrors.Add(1)
	p.loop.options.Report("dial", p.client, p.port.backend, err)
	p.front.reset()
	p.close()
}

// connectedToItself is asked where it can happen: when the backend's address is one of this host's own.
func (p *pair) connectedToItself() bool {
	if !p.port.local() {
		return false
	}
	own, peer := &p.loop.addresses[0], &p.loop.addresses[1]
	*own, *peer = unix.RawSockaddrAny{}, unix.RawSockaddrAny{}
	return getsockname(p.back.fd, own) == 0 && getpeername(p.back.fd, peer) == 0 && *own == *peer
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
	return bind(fd, &address) == 0
}
