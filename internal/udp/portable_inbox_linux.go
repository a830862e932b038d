package udp

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// letter is room for a datagram and what the kernel tells with it.
type letter struct {
	header  unix.Msghdr
	iovec   unix.Iovec
	control [controlSpace]byte
	data    [maxDatagram]byte
}

// letters holds as many as flows were receiving at the same time lately; the garbage collector empties it.
var letters = sync.Pool{New: func() any { return new(letter) }}

// receive tries once, and gives how many bytes there were.
func (l *letter) receive(fd int) (int, unix.Errno) {
	l.iovec.Base = &l.data[0]
	l.iovec.SetLen(len(l.data))
	l.header = unix.Msghdr{Iov: &l.iovec, Control: &l.control[0]}
	l.header.SetIovlen(1)
	l.header.SetControllen(len(l.control))
	return receiveOne(fd, &l.header)
}

// told is what the kernel told with the datagram.
func (l *letter) told() ancillary { return parseControl(l.control[:l.header.Controllen]) }

// cut tells from the flags of a received message whether it, or what was told with it, is incomplete.
func cut(flags int) bool { return flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 }

// inbox receives from a flow's socket, and holds a letter only while there are datagrams: a goroutine that waits
// for the next one holds none.
type inbox struct {
	raw    syscall.RawConn
	try    func(fd uintptr) bool // in.read, bound once rather than for each datagram
	letter *letter
	n      int
	errno  unix.Errno
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
			askTOS(int(fd), family)
		}
		discard(int(fd))
	}); err != nil {
		return nil, err
	}
	in := &inbox{raw: raw}
	in.try = in.read
	return in, nil
}

// receive waits for a datagram. It is valid until the next call.
func (in *inbox) receive() (datagram []byte, tos uint8, err error) {
	if err := in.raw.Read(in.try); err != nil {
		return nil, 0, err
	}
	switch {
	case in.errno != 0:
		return nil, 0, sysError("recvmsg", in.errno)
	case cut(int(in.letter.header.Flags)):
		return nil, 0, errCut
	}
	return in.letter.data[:in.n], in.letter.told().tos, nil
}

// read tries once, and answers false where the poller should wait. It tries before it lets the poller wait, because
// the poller tells of new datagrams only, not of those already queued.
func (in *inbox) read(fd uintptr) bool {
	if in.letter == nil {
		in.letter = letters.Get().(*letter)
	}
	in.n, in.errno = in.letter.receive(int(fd))
	if in.errno == unix.EAGAIN {
		in.release()
		in.burst = false
		return false
	}
	if in.burst && !in.wide { // as late as this: most flows never have several at a time
		in.wide = true
		tuneSingle(int(fd), flowBuffer, flowBuffer)
	}
	in.burst = true
	return true
}

// discardUnread empties the socket, which is about to be closed, and says how many datagrams there were. It may be
// called while another goroutine receives.
func (in *inbox) discardUnread() (n int) {
	scrap := letters.Get().(*letter)
	defer letters.Put(scrap)
	// It fails if the socket has been closed: then nothing waits there.
	_ = in.raw.Control(func(fd uintptr) {
		for range mostUnread * batch {
			_, errno := scrap.receive(int(fd))
			switch {
			case errno == 0:
				n++
			case lasting(errno) || errno == unix.EAGAIN:
				return
			}
		}
	})
	return n
}

func (in *inbox) release() {
	if in.letter != nil {
		letters.Put(in.letter)
		in.letter = nil
	}
}
