package rig

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Forbid runs f where a system call answers errno, as a sandbox has it: on a thread of its own, which is not used for
// anything else, and in the processes that f starts.
func Forbid(t testing.TB, call uint32, errno unix.Errno, f func()) {
	t.Helper()
	sandboxed(t, f, load(0), skipUnless(call, 1), answer(errno), allow)
}

// ForbidCase does so with a system call one of whose arguments, counted from zero, has a value of 32 bits.
func ForbidCase(t testing.TB, call uint32, argument int, value uint32, errno unix.Errno, f func()) {
	t.Helper()
	low := 16 + 8*uint32(argument) // in struct seccomp_data, where the lower half comes first
	sandboxed(t, f, load(0), skipUnless(call, 3), load(low), skipUnless(value, 1), answer(errno), allow)
}

// AsUser runs f as another user, who has root's rights no more: on a thread of its own, which is not used for anything else.
func AsUser(t testing.TB, user int, f func()) {
	t.Helper()
	apart(t, func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user)); errno != 0 {
			return errno
		}
		return nil
	}, f)
}

// Instructions of a filter of system calls. The call's number stands first in struct seccomp_data.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func skipUnless(value uint32, instructions uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: instructions}
}

func answer(errno unix.Errno) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

var allow = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}

func sandboxed(t testing.TB, f func(), filter ...unix.SockFilter) {
	t.Helper()
	apart(t, func() error { return install(filter) }, f)
}

// apart runs f on a thread of its own once that has been changed.
func apart(t testing.TB, change func() error, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		err := errors.New("the function has not come to its end") // as when it ends the test
		defer func() { done <- err }()
		runtime.LockOSThread() // and never unlocked: the thread ends here
		changed := change()
		if changed == nil {
			f()
		}
		err = changed
	}()
	Must(t, <-done)
}

// install has the calling thread's system calls filtered (seccomp(2)).
func install(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
