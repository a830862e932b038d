package sctp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// After an accept that fails, mostly for want of descriptors, the listener rests for a while: longer each time.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// accept takes the clients that wait, up to maxAccepts of them.
func (l *loop) accept() {
	for range maxAccepts {
		fd, from, err := unix.Accept4(l.relay.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return
		case err != nil:
			l.acceptFailed(os.NewSyscallError("accept4", err))
			return
		}
		l.pause = minPause
		// The kernel has copied the listener's options, also to an association that is older than they are.
		newPair(l, fd, addrPort(from)).dial()
	}
}

// acceptFailed has the listener rest.
func (l *loop) acceptFailed(err error) {
	r := l.relay
	r.count.acceptErrors.Add(1)
	r.report("accept", netip.AddrPort{}, r.backend, fmt.Errorf("sctp: accept for %s: %w", r.backend, err))
	l.alarms.set(&l.resume, l.now()+l.pause)
	l.pause = min(2*l.pause, maxPause)
	l.watchListener(0)
}

// listen ends the listener's rest.
func (l *loop) listen() { l.watchListener(unix.EPOLLIN) }

// watchListener changes what the listener is watched for: EPOLLIN, or nothing.
func (l *loop) watchListener(events uint32) {
	if err := l.rewatch(l.relay.listener, events); err != nil {
		panic(fmt.Sprintf("sctp: the listener is not watched: %v", err)) // it is open and registered
	}
}
