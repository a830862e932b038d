package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/zone"
)

// What may wait in a socket while the loop is busy or has not been scheduled yet, in bytes as the kernel counts them: a
// small datagram counts for 768. At 100,000 of those in a second, 4 MiB on the frontend outlast 50 ms, where the usual
// 208 KiB are full after 3 ms. A flow that bursts has 1 MiB, 14 of the largest blocks.
const (
	frontendBuffer = 4 << 20
	flowBuffer     = 1 << 20

	// frontendSendBuffer is far more than is under way to clients that are there. What is sent to one that has vanished
	// from a network of this host is kept until its address is given up, for 3 s and up to 208 KiB of each
	// (net.ipv4.neigh.default.unres_qlen_bytes): with 8 MiB, as the kernel counts, 48 of them kept every answer to others
	// out, and 300 have room in these 64.
	frontendSendBuffer = 32 << 20
)

// tune makes a socket ready for bursts: it passes them up as blocks, tells what it had no room for, and has room for
// many. Each of these is better to have than not, and none is needed: old kernels lack the first, and past
// net.core.rmem_max the last takes CAP_NET_ADMIN.
func tune(fd, receive, send int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	tuneSingle(fd, receive, send)
}

// tuneSingle is tune for a socket of which datagrams are received one by one.
func tuneSingle(fd, receive, send int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	enlarge(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, receive, "rmem_max")
	enlarge(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, send, "wmem_max")
}

// enlarge gives a socket a buffer of that size, unless it has a larger one: its opener's, or the system's default. The
// kernel doubles what is set, for its own use, and without CAP_NET_ADMIN bounds it.
func enlarge(fd, option, force, buffer int, bound string) {
	has, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	if err != nil || has >= 2*buffer || unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, buffer) == nil {
		return
	}
	text, err := os.ReadFile("/proc/sys/net/core/" + bound)
	if err != nil {
		return // it may be smaller than what the socket has
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && 2*min(buffer, most) > has {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, buffer)
	}
}

// allowFragments has a socket's datagrams leave without the DF bit, so that a router cuts those that are too large for
// its next link; and cut here only by the device's size, not by what ICMP claims the path to be (IP_PMTUDISC_OMIT,
// Linux 3.15). As it is, a server that asks for that has it undone by a proxy, and its answers are lost where ICMP is
// filtered. A kernel that does not know it does as before.
func allowFragments(fd int, family uint16) {
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
	}
}

// askTOS has a socket tell the DSCP and ECN of each datagram. Where that fails, or the kernel could not send what it
// tells, all leave with those of the socket.
func askTOS(fd int, family uint16) {
	if !sendsTOS() {
		return
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVTOS, 1)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
	}
}

// msgProbe is MSG_PROBE of include/linux/socket.h.
const msgProbe = 0x10

// sendsTOS says whether the kernel takes DSCP and ECN with a datagram: Linux before 3.13 answers EINVAL to every one
// that has them. With these flags, and without data, nothing is sent.
var sendsTOS = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return true // as all kernels do but very old ones
	}
	defer closeFD(fd)
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
	err = unix.Sendmsg(fd, nil, appendTOS(nil, true, 1), loopback, msgProbe|unix.MSG_CONFIRM)
	return err != unix.EINVAL
})

// discard throws away what has come to a socket that has sent nothing yet. Until it was connected anybody could send to
// it, and not only the backend.
func discard(fd int) {
	for errno := unix.Errno(0); errno == 0; {
		_, errno = receiveOne(fd, &unix.Msghdr{})
	}
}

// encode gives the address of a backend in the forms that socket(2) and connect(2) take.
func encode(backend netip.AddrPort) (family int, address unix.Sockaddr, err error) {
	addr, port := backend.Addr(), int(backend.Port())
	if addr.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: port}, nil
	}
	scope, err := zone.Index(addr.Zone())
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16(), Port: port, ZoneId: scope}, err
}

// source is the address that a socket speaks from, the zero one where the kernel does not say.
func source(fd int) netip.Addr {
	name, _ := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(name.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(name.Addr).Unmap()
	default:
		return netip.Addr{}
	}
}

// familyOf is the address family of a socket.
func familyOf(fd int) (uint16, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return uint16(family), sysError("getsockopt SO_DOMAIN", err)
}

// sysError names the call that failed.
func sysError(call string, err error) error { return os.NewSyscallError(call, err) }

// readyPortable makes the portable relay's frontend ready.
func readyPortable(frontend *net.UDPConn) error {
	raw, err := frontend.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = readyFrontend(int(fd))
		// It receives datagram by datagram. Where the kernel does not know this there is nothing to undo.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 0)
		tuneSingle(int(fd), frontendBuffer, frontendSendBuffer)
	})
	return errors.Join(err, failed)
}

// readyFrontend makes a socket, which others may have opened, what both relays expect of a frontend.
func readyFrontend(fd int) error {
	family, err := familyOf(fd)
	if err != nil {
		return err
	}
	if err := setPktinfo(fd, family); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		// Lets replies leave from an address that is local by a route only, as IPv4 does anyhow. Where a kernel does
		// not know it, these are dropped and reported.
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}
	allowFragments(fd, family)
	askTOS(fd, family)
	return ignoreErrors(fd, family)
}

// setPktinfo asks for the local addresses. An IPv6 socket that also takes IPv4 gets both messages for IPv4 datagrams;
// only IP_PKTINFO then has the address to reply from if the datagram was broadcast.
func setPktinfo(fd int, family uint16) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
		return sysError("setsockopt IP_PKTINFO", err)
	}
	if family != unix.AF_INET6 {
		return nil
	}
	return sysError("setsockopt IPV6_RECVPKTINFO",
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1))
}

// ignoreErrors has the kernel not queue what ICMP says of clients that have gone, and empties the queue. A socket whose
// opener asked for that is ready (EPOLLERR) until somebody reads the queue, and fails sends to other clients.
func ignoreErrors(fd int, family uint16) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 0); err != nil {
		return sysError("setsockopt IP_RECVERR", err)
	}
	if family != unix.AF_INET6 {
		return nil
	}
	return sysError("setsockopt IPV6_RECVERR", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 0))
}

// memDrops is the place of a socket's drops in what SO_MEMINFO tells, SK_MEMINFO_DROPS, and the last one there.
const memDrops = 8

// lostBy returns how many datagrams a socket had no room for since it was opened: what it also tells with each datagram
// that it receives (SO_RXQ_OVFL), but not of those lost after the last. Kernels before 4.12 do not say.
func lostBy(fd int) (lost uint32, counted bool) {
	var info [memDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[memDrops], errno == 0 && size == uint32(unsafe.Sizeof(info))
}

// lostByConn is lostBy of a socket of net's. One that is closed does not say.
func lostByConn(conn *net.UDPConn) (lost uint32, counted bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) { lost, counted = lostBy(int(fd)) })
	return lost, counted && err == nil
}

// fromICMP says whether an error may be the answer of a router, or of the backend's host, to an earlier datagram: it is
// one of those that ICMP messages become (icmp_err_convert and icmpv6_err_convert in the kernel).
func fromICMP(err error) bool {
	for _, errno := range icmpErrors {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

var icmpErrors = []syscall.Errno{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EACCES,
	unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.ENONET}

// drainErrors empties a socket's queue of errors, of at most that many, and says of how many.
func drainErrors(fd, most int) (n int) {
	var buffer [1]byte
	for ; n < most; n++ {
		if _, _, _, _, err := unix.Recvmsg(fd, buffer[:], nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
			break
		}
	}
	return n
}
