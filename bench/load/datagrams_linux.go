package main

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxDatagram is the largest payload of UDP over IPv4, and of the blocks that UDP_GRO and UDP_SEGMENT stand for.
const maxDatagram = 65_507

// echoDatagrams sends every datagram back to where it came from.
func echoDatagrams(fd int) error {
	b := newBatch(64, maxDatagram).withNames()
	for {
		n, errno := receive(fd, b.messages, unix.MSG_WAITFORONE)
		if errno != 0 {
			return os.NewSyscallError("recvmmsg", errno)
		}
		b.resize(n, func(m message) int { return int(m.size) })
		if err := sendAll(fd, b.messages[:n]); err != nil {
			return err
		}
		b.resize(n, func(message) int { return maxDatagram })
	}
}

// countDatagrams adds up the bytes that arrive. Blocks of datagrams arrive as they were sent where they are.
func countDatagrams(fd int, received *atomic.Int64) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		return os.NewSyscallError("setsockopt UDP_GRO", err)
	}
	b := newBatch(64, maxDatagram)
	for {
		n, errno := receive(fd, b.messages, unix.MSG_WAITFORONE)
		if errno != 0 {
			return os.NewSyscallError("recvmmsg", errno)
		}
		for _, m := range b.messages[:n] {
			received.Add(int64(m.size))
		}
	}
}

// sendAll sends the messages, in as many calls as it takes.
func sendAll(fd int, messages []message) error {
	for len(messages) > 0 {
		n, errno := send(fd, messages)
		if errno != 0 {
			return os.NewSyscallError("sendmmsg", errno)
		}
		messages = messages[n:]
	}
	return nil
}
