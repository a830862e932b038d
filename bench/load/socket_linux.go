package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// backlog is dockerd's: the bound is the kernel's, net.core.somaxconn.
const backlog = 1 << 16

// tcpSocket makes a TCP socket that does not block. As with Go and most servers a message goes out when it is written.
func tcpSocket() (int, error) {
	fd, err := socket(unix.SOCK_STREAM | unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("setsockopt TCP_NODELAY", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

// listenTCP opens a listener that does not block.
func listenTCP(on netip.AddrPort) (int, error) {
	fd, err := tcpSocket()
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(on))
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return -1, fmt.Errorf("listen on %v: %w", on, err)
	}
	return fd, nil
}

// bindUDP opens a socket for datagrams, whose calls block. It has room for datagrams that arrive while the CPU is
// somebody else's, beyond the limit of the system where that is allowed: the end of the traffic is to lose nothing. 4 MiB
// are 8 ms of 4 Gbit/s.
func bindUDP(on netip.AddrPort) (int, error) {
	const size = 4 << 20
	fd, err := socket(unix.SOCK_DGRAM)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	}
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(on))
	}
	if err != nil {
		return -1, fmt.Errorf("datagrams on %v: %w", on, err)
	}
	return fd, nil
}

// dialUDP opens a socket for datagrams to one address.
func dialUDP(to *unix.SockaddrInet4) (int, error) {
	fd, err := socket(unix.SOCK_DGRAM)
	if err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, to))
	}
	return fd, err
}

func socket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// batch is what one system call receives or sends: datagrams, each with a buffer.
type batch struct {
	messages []unix.Mmsghdr
	iovecs   []unix.Iovec
	buffers  [][]byte
}

func newBatch(length, size int) *batch {
	b := &batch{
		messages: make([]unix.Mmsghdr, length),
		iovecs:   make([]unix.Iovec, length),
		buffers:  make([][]byte, length),
	}
	for i := range b.messages {
		b.buffers[i] = make([]byte, size)
		b.iovecs[i].Base = &b.buffers[i][0]
		b.iovecs[i].SetLen(size)
		b.messages[i].Hdr.Iov = &b.iovecs[i]
		b.messages[i].Hdr.SetIovlen(1)
	}
	return b
}

// withNames gives every message room for the address of its sender.
func (b *batch) withNames() *batch {
	names := make([]unix.RawSockaddrInet4, len(b.messages))
	for i := range b.messages {
		b.messages[i].Hdr.Name = (*byte)(unsafe.Pointer(&names[i]))
		b.messages[i].Hdr.Namelen = unix.SizeofSockaddrInet4
	}
	return b
}
