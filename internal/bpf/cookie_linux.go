package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// namespaceCookie is the number of this thread's network namespace. The kernel tells programs from Linux 5.7 on, and
// processes from 5.14 on.
func namespaceCookie(cgroup *os.File) (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }() // it was only asked
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return cookieByProgram(cgroup, fd)
	}
	return cookie, os.NewSyscallError("getsockopt SO_NETNS_COOKIE", err)
}

// cookieByProgram has a program tell it, which is attached while one UDP socket connects, and knows that socket by its
// storage. No datagram leaves.
func cookieByProgram(cgroup *os.File, fd int) (cookie uint64, err error) {
	closeTo := func(c interface{ Close() error }) { err = errors.Join(err, c.Close()) }
	spec := storageSpec("bypass_cookie", &btf.Int{Name: "unsigned long long", Size: 8}, 8)
	told, err := ebpf.NewMap(&spec)
	if err != nil {
		return 0, err
	}
	defer closeTo(told)
	socket := int32(fd)
	if err = told.Put(socket, uint64(0)); err != nil {
		return 0, err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bypass_cookie", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: license,
		Instructions: join(
			asm.Instructions{
				asm.Mov.Reg(ctx, asm.R1),
				asm.LoadMem(sock, ctx, ctxSock, asm.DWord),
			},
			storage(told, 0),
			asm.Instructions{
				asm.JEq.Imm(asm.R0, 0, "leave"),
				asm.Mov.Reg(value, asm.R0),
				asm.Mov.Reg(asm.R1, ctx),
				asm.FnGetNetnsCookie.Call(),
				asm.StoreMem(value, 0, asm.R0, asm.DWord),
				asm.Mov.Imm(asm.R0, 1).WithSymbol("leave"),
				asm.Return(),
			}),
	})
	if err != nil {
		return 0, fmt.Errorf("load the program for the namespace's cookie: %w", err)
	}
	defer closeTo(p)
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p,
		Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		return 0, fmt.Errorf("attach the program for the namespace's cookie to %s: %w", cgroup.Name(), err)
	}
	defer closeTo(l)
	refused := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 1}) // after the program has run
	if err = told.Lookup(socket, &cookie); err == nil && cookie == 0 {
		err = errors.Join(fmt.Errorf("%w: the kernel has told no cookie of the network namespace", errors.ErrUnsupported), refused)
	}
	return cookie, err
}
