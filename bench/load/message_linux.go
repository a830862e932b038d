package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is the kernel's struct mmsghdr: a datagram to be received or sent, and its size once it has been.
type message struct {
	header unix.Msghdr
	size   uint32
}

// batch is what one system call receives or sends: datagrams, each with a buffer.
type batch struct {
	messages []message
	iovecs   []unix.Iovec
	buffers  [][]byte
}

func newBatch(length, size int) *batch {
	b := &batch{
		messages: make([]message, length),
		iovecs:   make([]unix.Iovec, length),
		buffers:  make([][]byte, length),
	}
	for i := range b.messages {
		b.buffers[i] = make([]byte, size)
		b.iovecs[i].Base = &b.buffers[i][0]
		b.iovecs[i].SetLen(size)
		b.messages[i].header.Iov = &b.iovecs[i]
		b.messages[i].header.SetIovlen(1)
	}
	return b
}

// withNames gives every message room for the address of its sender.
func (b *batch) withNames() *batch {
	names := make([]unix.RawSockaddrInet4, len(b.messages))
	for i := range b.messages {
		b.messages[i].header.Name = (*byte)(unsafe.Pointer(&names[i]))
		b.messages[i].header.Namelen = unix.SizeofSockaddrInet4
	}
	return b
}

// resize sets the sizes of the first n buffers.
func (b *batch) resize(n int, size func(message) int) {
	for i, m := range b.messages[:n] {
		b.iovecs[i].SetLen(size(m))
	}
}
