package udp

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// buffers holds as many buffers as flows were receiving at the same time lately; the garbage collector empties it.
var buffers = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// inbox receives from a flow's socket, and holds a buffer only while there are datagrams: a goroutine that waits
// for the next one holds none.
type inbox struct {
	raw    syscall.RawConn
	try    func(fd uintptr) bool // in.read, bound once rather than for each datagram
	buffer *[maxDatagram]byte
	n      int
	err    error
	burst  bool // it has not waited since the datagram before
	wide   bool // the socket has been made ready for bursts
}

func newInbox(conn *net.UDPConn) (*inbox, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := raw.Control(func(fd uintptr) {
		if family, err := familyOf(int(fd)); err == nil {
			allowFragments(int(fd), family)
		}
	}); err != nil {
		return nil, err
	}
	in := &inbox{raw: raw}
	in.try = in.read
	return in, nil
}

// receive waits for a datagram. It is valid until the next call.
func (in *inbox) receive() ([]byte, error) {
	if err := in.raw.Read(in.try); err != nil {
		return nil, err
	}
	if in.err != nil {
		return nil, os.NewSyscallError("read", in.err)
	}
	return in.buffer[:in.n], nil
}

// read tries once, and answers false where the poller should wait. It tries before it lets the poller wait, because
// the poller tells of new datagrams only, not of those already queued.
func (in *inbox) read(fd uintptr) bool {
	if in.buffer == nil {
		in.buffer = buffers.Get().(*[maxDatagram]byte)
	}
	for {
		in.n, in.err = unix.Read(int(fd), in.buffer[:])
		if !errors.Is(in.err, unix.EINTR) {
			break
		}
	}
	if errors.Is(in.err, unix.EAGAIN) {
		in.release()
		in.burst = false
		return false
	}
	if in.burst && !in.wide { // as late as this: most flows never have several at a time
		in.wide = true
		tuneSingle(int(fd), flowBuffer)
	}
	in.burst = true
	return true
}

func (in *inbox) release() {
	if in.buffer != nil {
		buffers.Put(in.buffer)
		in.buffer = nil
	}
}
