package udp

import (
	"golang.org/x/sys/unix"
)

// A block is one packet with a note of how to cut it. The kernel cuts it where a socket receives it, and where it
// leaves by a device that cannot. But it passes a veth cable and a bridge whole, and who reads packets at the other
// end rather than has a socket (gVisor, AF_PACKET) may take it for one datagram: 96 of 500 bytes arrived in a runsc
// container as some of 8,000. No error tells. So a block is sent only where it cannot get there: to this host's
// own sockets, or out of hardware, which cuts. What is behind the address of a container nobody can tell from here.

// blocksTo says how large the datagrams of blocks to the backend may be: zero is that there are to be none.
func (s *settings) blocksTo() uint16 {
	if s.Blocks == BlocksOn || s.Blocks == BlocksAuto && s.backend.Addr().IsLoopback() {
		return maxBlock
	}
	return 0
}

// blocksBack is blocksTo for the client who came by a device.
func (s *settings) blocksBack(device uint32) uint16 {
	if s.Blocks == BlocksOn || s.Blocks == BlocksAuto && s.port.cuts(device) {
		return maxBlock
	}
	return 0
}

// mostDevices bounds what is remembered of devices, as they come and go.
const mostDevices = 64

// cuts says whether a device is this host's loopback, or hardware.
func (p *Port) cuts(device uint32) bool {
	cuts, known := p.devices[device]
	if known {
		return cuts
	}
	if p.devices == nil || len(p.devices) == mostDevices {
		p.devices = map[uint32]bool{}
	}
	cuts = isLoopback(p.frontend, device) || isHardware(p.frontend, device)
	p.devices[device] = cuts
	return cuts
}

// nameOf is a device's name, in the network namespace of a socket.
func nameOf(socket int, device uint32) (string, error) {
	request, err := unix.NewIfreq("?") // the name is the answer
	if err != nil {
		return "", err
	}
	request.SetUint32(device)
	err = unix.IoctlIfreq(socket, unix.SIOCGIFNAME, request)
	return request.Name(), err
}

func isLoopback(socket int, device uint32) bool {
	name, err := nameOf(socket, device)
	if err != nil {
		return false
	}
	request, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, request) != nil {
		return false
	}
	return request.Uint16()&unix.IFF_LOOPBACK != 0
}

// isHardware says whether a device is on a bus, as cards and their virtual likes are, and no bridge, cable or tunnel.
func isHardware(socket int, device uint32) bool {
	name, err := nameOf(socket, device)
	if err != nil {
		return false
	}
	info, err := unix.IoctlGetEthtoolDrvinfo(socket, name)
	if err != nil {
		return false
	}
	driver, bus := unix.ByteSliceToString(info.Driver[:]), unix.ByteSliceToString(info.Bus_info[:])
	return bus != "" && bus != "N/A" && driver != "tun"
}

// single is room for datagrams that are cut from a block here.
type single struct {
	messages [batch]unix.Mmsghdr
	iovecs   [batch]unix.Iovec
}

// sendEach sends the datagrams of message i one by one, in order.
func (l *lane) sendEach(i int) {
	whole := l.out.complete(i, false)
	n := 0
	for datagram := range l.out.datagrams(i) {
		l.single.iovecs[n] = datagram
		l.single.messages[n] = *whole
		l.single.messages[n].Hdr.Iov = &l.single.iovecs[n]
		l.single.messages[n].Hdr.SetIovlen(1)
		if n++; n == batch {
			l.sendSingle(i, n)
			n = 0
		}
	}
	l.sendSingle(i, n)
}

// sendSingle sends so many datagrams of message i.
func (l *lane) sendSingle(i, n int) {
	p, parcel := l.out.port, &l.out.parcels[i] // whose flow another may take the place of
	for sent := 0; sent < n; {
		left := l.single.messages[sent:n]
		k, errno := p.kernel.send(l.out.socket(), left)
		if errno != 0 {
			k = 1
			errno = l.trySingle(left[:1], errno)
		}
		if errno != 0 {
			parcel.flow.lose(1, l.out.way, sysError("sendmmsg", errno))
		} else {
			bytes := 0
			for i := range k {
				bytes += int(left[i].Hdr.Iov.Len)
			}
			parcel.flow.count(l.out.way, bytes)
			p.count.countSent(l.out.way, k, bytes)
		}
		sent += k
	}
}

// trySingle tries a message that failed again, where that may help, and gives its new error.
func (l *lane) trySingle(message []unix.Mmsghdr, errno unix.Errno) unix.Errno {
	if l.out.way == toBackend {
		errno = l.retry(message, errno)
	}
	if errno != 0 && l.renew(errno) {
		_, errno = l.out.port.kernel.send(l.out.socket(), message)
	}
	return errno
}
