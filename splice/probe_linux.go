package splice

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Supported says whether the engine can run here: nil, or an error that wraps errors.ErrUnsupported and names
// what is missing.
//
// A splice from a TCP socket that is not connected must answer ENOTCONN (tcp_splice_read in net/ipv4/tcp.c).
// Where the kernel or a sandbox does not know splice on sockets it answers ENOSYS, EINVAL or EPERM instead.
func Supported() error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return unsupported("pipe2", err)
	}
	defer closeFD(fds[0])
	defer closeFD(fds[1])
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		socket, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		return unsupported("socket", err)
	}
	defer closeFD(socket)
	if _, errno := (linux{}).splice(socket, fds[1], 1); errno != unix.ENOTCONN {
		return unsupported("splice from a socket", errno)
	}
	return nil
}

// unsupported wraps errors.ErrUnsupported, unless something has merely run out: that is not for ever.
func unsupported(what string, cause error) error {
	for _, passing := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		if errors.Is(cause, passing) {
			return fmt.Errorf("splice: %s: %w", what, cause)
		}
	}
	return fmt.Errorf("%w: %s: %w", errors.ErrUnsupported, what, cause)
}
