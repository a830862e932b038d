package udp

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// scripted is the real kernel but for what a test makes of it. Its functions are called on the loop's goroutine, and
// answer for the real one when they return something but zero.
type scripted struct {
	linux
	mu             sync.Mutex
	failReceive    func(fd int) unix.Errno
	failSend       func(fd int, message *unix.Mmsghdr) unix.Errno
	alter          func(fd int, messages []unix.Mmsghdr) // what was received
	most           int                                   // messages that one send takes; zero: all
	failOpen       unix.Errno
	received, sent int // calls
}

func (s *scripted) receive(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received++
	if s.failReceive != nil {
		if errno := s.failReceive(fd); errno != 0 {
			return 0, errno
		}
	}
	n, errno := s.linux.receive(fd, messages)
	if s.alter != nil {
		s.alter(fd, messages[:n])
	}
	return n, errno
}

func (s *scripted) open(family int, backend unix.Sockaddr, from netip.AddrPort) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failOpen != 0 {
		return -1, s.failOpen
	}
	return s.linux.open(family, backend, from)
}

// send, like the kernel, tells of an error only if it is the first message's.
func (s *scripted) send(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	if s.most > 0 {
		messages = messages[:min(s.most, len(messages))]
	}
	for i := range messages {
		if s.failSend == nil {
			break
		}
		errno := s.failSend(fd, &messages[i])
		if errno != 0 && i == 0 {
			return 0, errno
		}
		if errno != 0 {
			messages = messages[:i]
			break
		}
	}
	return s.linux.send(fd, messages)
}

// script changes what the kernel does from now on.
func (s *scripted) script(f func(s *scripted)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// isBlock tells whether a message asks for UDP_SEGMENT.
func isBlock(m *unix.Mmsghdr) bool { return segmentOf(m) > 0 }

// newScripted makes a port on a scripted kernel.
func newScripted(t *testing.T, backend netip.AddrPort, o Options) (*rig, *Port, *scripted) {
	t.Helper()
	r := eventLoop.newRelay(t, "127.0.0.1", backend, o)
	p, kernel := portUnder(r), new(scripted)
	p.do(func() { p.kernel = kernel })
	return r, p, kernel
}

// sendBlock sends several datagrams as one block (UDP_SEGMENT), to an address or, if that is not valid, the peer.
func sendBlock(t *testing.T, conn *net.UDPConn, block []byte, segment int, to netip.AddrPort) {
	t.Helper()
	if _, _, err := conn.WriteMsgUDPAddrPort(block, appendSegment(nil, uint16(segment)), to); err != nil {
		t.Fatal(err)
	}
}
