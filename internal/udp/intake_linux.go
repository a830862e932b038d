package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// intake is a batch of received messages.
type intake struct {
	messages [batch]unix.Mmsghdr
	iovecs   [batch]unix.Iovec
	names    [batch]sockaddr
	controls [batch][controlSpace]byte
}

// prepare makes message i ready to be received into buffer. Who sent it is asked for unless the socket is connected,
// control messages are asked for where the socket has any to give.
func (in *intake) prepare(i int, buffer []byte, named, control bool) {
	iovec := &in.iovecs[i]
	iovec.Base = unsafe.SliceData(buffer)
	iovec.SetLen(len(buffer))
	header := &in.messages[i].Hdr
	*header = unix.Msghdr{Iov: iovec}
	header.SetIovlen(1)
	if named {
		header.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		header.Namelen = uint32(unsafe.Sizeof(in.names[i]))
	}
	if control {
		header.Control = &in.controls[i][0]
		header.SetControllen(len(in.controls[i]))
	}
}

// size is how many bytes message i has.
func (in *intake) size(i int) int { return int(in.messages[i].Len) }

// ancillary is what the kernel told with message i.
func (in *intake) ancillary(i int) ancillary {
	if in.messages[i].Hdr.Controllen == 0 {
		return ancillary{}
	}
	return parseControl(in.controls[i][:in.messages[i].Hdr.Controllen])
}

// cut tells whether message i, or what was told with it, is incomplete. Neither should happen: buffers are larger
// than any datagram, and a block of datagrams whose size got lost must not be taken for one.
func (in *intake) cut(i int) bool {
	return in.messages[i].Hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0
}
