package rig

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// nothing is what streams consist of.
var nothing = make([]byte, 1<<20)

// Pour sends zeros until the connection fails. It costs no more CPU than the system call, under the race detector too,
// so that the proxy is what the machine is busy with.
func Pour(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	for err == nil {
		waited := raw.Write(func(fd uintptr) bool {
			err = unix.Sendto(int(fd), nothing, unix.MSG_NOSIGNAL, nil) // however much of it
			return !errors.Is(err, unix.EAGAIN)
		})
		err = errors.Join(err, waited)
	}
}

// Drain throws away what a connection receives, to its end, without copying it (MSG_TRUNC, tcp(7)).
func Drain(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	for n := 1; err == nil && n > 0; {
		waited := raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), nothing, unix.MSG_TRUNC)
			return !errors.Is(err, unix.EAGAIN)
		})
		err = errors.Join(err, waited)
	}
}
