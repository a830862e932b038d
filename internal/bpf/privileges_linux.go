package bpf

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Unprivileged has this process, which must be without cgo, give up all capabilities, and the way to get any by exec. The
// table works on: what it has is open. Before Linux 5.19, where unprivileged_bpf_disabled is set, each bpf(2) takes CAP_BPF
// (__sys_bpf in kernel/bpf/syscall.c), and that one is kept.
func (t *Table) Unprivileged() error {
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("give up privileges: prctl: %w", err)
	}
	const kept = 1 << (unix.CAP_BPF % 32)
	if err := restrict(0, kept); err != nil {
		return err
	}
	err := t.maps.addresses.Lookup(&addressKey{}, new(uint32))
	if errors.Is(err, unix.EPERM) && restrict(kept, kept) == nil {
		return nil
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("without capabilities: %w", err)
	}
	return restrict(0, 0)
}

// restrict leaves the process those of its capabilities. All that are left are of the second word: CAP_BPF is 39.
func restrict(effective, permitted uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("give up privileges: capget: %w", err)
	}
	data[0] = unix.CapUserData{}
	data[1].Permitted &= permitted // who had CAP_SYS_ADMIN instead may have no CAP_BPF
	data[1].Effective = data[1].Permitted & effective
	data[1].Inheritable = 0
	if err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data))); err != nil {
		return fmt.Errorf("give up privileges: capset: %w", err)
	}
	return nil
}

//go:uintptrescapes
func allThreads(call, a, b uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(call, a, b, 0); errno != 0 {
		return errno
	}
	return nil
}
