package listener

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopt takes the socket that dockerd bound. Its errors say in what it is not what the protocol needs.
func Adopt(p Protocol) (*Socket, error) { return AdoptFD(socketFD, p) }

// AdoptFD is Adopt where the socket has another number by now. It is taken also when that fails.
func AdoptFD(fd int, p Protocol) (*Socket, error) {
	s, err := adopt(fd, p)
	if err != nil {
		if fd != socketFD {
			_ = unix.Close(fd) // it is of no use
		}
		return nil, fmt.Errorf("-use-listen-fd: descriptor %d: %w", socketFD, err)
	}
	return s, nil
}

func adopt(fd int, p Protocol) (*Socket, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("no socket was handed over (%w)", os.NewSyscallError("fcntl", err))
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if errors.Is(err, unix.ENOTSOCK) {
		return nil, fmt.Errorf("it is not a socket (%w)", err)
	}
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_TYPE", err)
	}
	number, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_PROTOCOL", err)
	}
	if !serves(p, kind, number) {
		return nil, fmt.Errorf("it is not a socket for %s: type %d, protocol %d", p, kind, number)
	}
	if err := checkBound(fd); err != nil {
		return nil, err
	}
	if p != UDP {
		if err := listen(fd); err != nil {
			return nil, err
		}
	}
	return &Socket{fd: fd}, nil
}

// listen makes the socket listen, with the longest queue that the kernel allows. One that listens already may have a
// longer one: a second listen(2) would cut it to what net.core.somaxconn is now.
func listen(fd int) error {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_ACCEPTCONN", err)
	}
	if listens != 0 && queueOf(fd) >= longestQueue() {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// queueOf is how many connections may wait at a socket that listens: tcpi_sacked (tcp_get_info of net/ipv4/tcp.c). Where the
// kernel does not say, it counts as long enough.
func queueOf(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return backlog
	}
	return int(info.Sacked)
}

// longestQueue is what the kernel cuts queues to; zero if it cannot be read.
func longestQueue() int {
	text, _ := os.ReadFile("/proc/sys/net/core/somaxconn")
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// serves says whether a socket's type and protocol are the right ones. A TCP listener may be an MPTCP one: Go
// programs open those by default.
func serves(p Protocol, kind, number int) bool {
	wantKind, wantNumber := transport(p)
	return kind == wantKind && (number == wantNumber || p == TCP && number == unix.IPPROTO_MPTCP)
}

func checkBound(fd int) error {
	address, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	port := 0
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		port = a.Port
	case *unix.SockaddrInet6:
		port = a.Port
	default:
		return errors.New("it is not an IPv4 or IPv6 socket")
	}
	if port == 0 {
		return errors.New("the socket is not bound to a port")
	}
	return nil
}
