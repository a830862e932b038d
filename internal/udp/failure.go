package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// errNowhere is why an answer is not sent to 0.0.0.0 or ::, from where DHCP's clients ask: the kernel would take it for
// this host.
var errNowhere = errors.New("the client has no address")

// errCut is why a message is not passed on that was received in part.
var errCut = fmt.Errorf("received in part: %w", syscall.EMSGSIZE)

// errUnread is why answers are dropped that nobody had read when their flow closed.
var errUnread = errors.New("the flow was closed while they waited to be read")

// passing are the errors of a send after which the socket is as good as before: the datagram was too large, the backend
// is down, a queue was full, or the host does not let datagrams go there for now, by its packet filter (EPERM) or its
// routes.
var passing = []syscall.Errno{syscall.EMSGSIZE, syscall.ECONNREFUSED, syscall.EAGAIN, syscall.ENOBUFS,
	syscall.EPERM, syscall.EACCES, syscall.EHOSTUNREACH}

// prober finds out whether a flow's socket is no good any more, or never was: its source address may have left the host,
// or not have been there yet. And it knows whether an error may be about another datagram. Its zero value is ready.
type prober struct {
	again time.Duration // when to look next
	own   error         // what the host itself answers to sends, until then
	until time.Duration
}

// probePause is how long a missing route, or address, is believed in. A look costs three system calls.
const probePause = 100 * time.Millisecond

// byRoute are the errors that a router answers with and that the host's own routes give just as well.
var byRoute = []syscall.Errno{syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES}

// maybeOfAnother tells whether the error of a send may be the answer to an earlier datagram, so that it is worth a second
// try.
func (p *prober) maybeOfAnother(err error, now time.Duration) bool {
	return fromICMP(err) && (now >= p.until || !errors.Is(err, p.own))
}

// failedAgain is told of a second try's error. The same as at the first one is the host's own, if its routes can give it.
func (p *prober) failedAgain(first, second error, now time.Duration) {
	for _, errno := range byRoute {
		if errors.Is(first, errno) && errors.Is(second, errno) {
			p.own, p.until = errno, now+probePause
		}
	}
}

// errStray is why what a flow sends may not arrive.
var errStray = errors.New("the host has no address on the way there that is ready: sending from that of loopback")

// stray tells whether a new socket speaks from an address that nobody answers to: that of loopback, to a backend that is
// elsewhere. IPv6 chooses it while an address is tentative, or there is none.
func (p *prober) stray(backend netip.Addr, now time.Duration, source func() netip.Addr) bool {
	if !backend.Is6() || backend.IsLoopback() || !source().IsLoopback() {
		return false
	}
	p.again = now + probePause
	return true
}

// settled tells whether another socket than one that is stray would not be.
func (p *prober) settled(now time.Duration, fresh func() (netip.Addr, error)) bool {
	if now < p.again {
		return false
	}
	p.again = now + probePause
	addr, err := fresh()
	return err == nil && !addr.IsLoopback()
}

// faulty tells whether the error of a send, or of its second try, shows that the socket is no good. It is EINVAL, but
// ENETUNREACH with newer kernels, for which a missing route is the same. So then source, the address that the socket
// speaks from, is compared with that of a fresh one.
func (p *prober) faulty(err error, now time.Duration, source func() netip.Addr, fresh func() (netip.Addr, error)) bool {
	for _, errno := range passing {
		if errors.Is(err, errno) {
			return false
		}
	}
	switch {
	case !errors.Is(err, syscall.ENETUNREACH):
		return true
	case now < p.again:
		return false
	case outdated(source(), fresh):
		return true
	}
	p.again = now + probePause
	return false
}

// outdated tells whether a new socket would reach the backend where the one that speaks from source does not: from
// another address. Where descriptors or ports have run out nobody can tell, and the new socket needs those of the old.
func outdated(source netip.Addr, fresh func() (netip.Addr, error)) bool {
	addr, err := fresh()
	if err != nil {
		return exhausted(err)
	}
	return addr != source
}

// freshSource is the address that a new socket would speak to the backend from.
func freshSource(backend netip.AddrPort) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(backend))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	return sourceOf(conn), nil
}

// sourceOf is the address that a socket speaks from.
func sourceOf(conn *net.UDPConn) netip.Addr {
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
}

// exhausted tells whether a flow less would help: no descriptor left in the process or the system (EMFILE, ENFILE),
// or no ephemeral port (EAGAIN from Linux's connect, EADDRNOTAVAIL elsewhere).
func exhausted(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// The longest pause is also how long traffic may stand still after the cause has gone: short enough for a person not
// to notice, long enough that a call that fails for good costs ten wake-ups a second.
const (
	shortestPause = time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// backoff spaces out the attempts at a call that keeps failing. The zero value is ready to use.
type backoff struct{ rest time.Duration }

func (b *backoff) reset() { b.rest = 0 }

// next is how long to rest after one more failure: not at all after the first, and longer with each.
func (b *backoff) next() time.Duration {
	rest := b.rest
	b.rest = min(max(2*b.rest, shortestPause), longestPause)
	return rest
}

// pause rests, unless done is closed first.
func (b *backoff) pause(done <-chan struct{}) {
	rest := b.next()
	if rest == 0 {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
