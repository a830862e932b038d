package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// addresses keeps a map of the addresses that a network namespace has.
type addresses struct {
	kernel *ebpf.Map
	cookie uint64
	socket *os.File // netlink
	known  map[held]struct{}
	done   chan struct{}
}

// held is an address of an interface. Several interfaces may have the same.
type held struct {
	index   uint32
	address netip.Addr
}

// watchAddresses fills the map with what this thread's namespace has, and follows the changes.
func watchAddresses(m *ebpf.Map, cookie uint64) (*addresses, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	a := &addresses{kernel: m, cookie: cookie, socket: os.NewFile(uintptr(fd), "netlink"), done: make(chan struct{})}
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK,
		Groups: 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)}))
	if err == nil {
		err = a.restart()
	}
	if err != nil {
		return nil, errors.Join(err, a.socket.Close())
	}
	listed := make(chan struct{})
	go a.follow(listed)
	<-listed
	return a, nil
}

func (a *addresses) close() error {
	err := a.socket.Close()
	<-a.done
	return err
}

// restart forgets what is known and asks for all. Answers and news come in the order in which they were true.
func (a *addresses) restart() error {
	for h := range a.known {
		a.forget(h)
	}
	a.known = make(map[held]struct{})
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETADDR)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	_, err := a.socket.Write(request)
	return err
}

// follow reads to the end of the socket. What the kernel says first is complete when listed is closed.
func (a *addresses) follow(listed chan struct{}) {
	defer close(a.done)
	complete := func() {
		if listed != nil {
			close(listed)
			listed = nil
		}
	}
	defer complete()
	for buffer := make([]byte, 32<<10); ; { // more than the kernel puts into a message (NLMSG_GOODSIZE)
		n, err := a.socket.Read(buffer)
		if errors.Is(err, unix.ENOBUFS) { // news were lost
			err = a.restart()
			n = 0
		}
		if err != nil {
			for h := range a.known { // nobody would tell of the end of an address
				a.forget(h)
			}
			return
		}
		messages, _ := syscall.ParseNetlinkMessage(buffer[:n]) // of the kernel, and whole
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWADDR, unix.RTM_DELADDR:
				a.apply(m)
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				complete()
			}
		}
	}
}

// apply notes an address that has come or gone.
func (a *addresses) apply(m syscall.NetlinkMessage) {
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return
	}
	h := held{index: binary.NativeEndian.Uint32(m.Data[4:])} // struct ifaddrmsg
	for _, attribute := range attributes {
		// IFA_LOCAL is the host's own where IFA_ADDRESS is the other end's, and comes after it.
		if t := attribute.Attr.Type; t == unix.IFA_LOCAL || t == unix.IFA_ADDRESS && !h.address.IsValid() {
			h.address, _ = netip.AddrFromSlice(attribute.Value)
		}
	}
	switch {
	case !h.address.IsValid() || h.address.Is6() && h.address.IsLinkLocalUnicast():
	case m.Header.Type == unix.RTM_DELADDR:
		a.forget(h)
	default:
		a.known[h] = struct{}{}
		key := addressKey{a.cookie, h.address.As16()}
		_ = a.kernel.Put(&key, uint32(1)) // in a map that is full it is one more address that takes the proxy
	}
}

// forget takes the address of an interface out, unless another has it.
func (a *addresses) forget(h held) {
	delete(a.known, h)
	for other := range a.known {
		if other.address == h.address {
			return
		}
	}
	key := addressKey{a.cookie, h.address.As16()}
	_ = a.kernel.Delete(&key) // it may have found no room
}
