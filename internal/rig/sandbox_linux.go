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
	done := make(chan error)
	go func() {
		err := errors.New("the function has not come to its end") // as when it ends the test
		defer func() { done <- err }()
		runtime.LockOSThread() // and never unlocked: the thread ends here
		forbidden := forbid(call, errno)
		if forbidden == nil {
			f()
		}
		err = forbidden
	}()
	Must(t, <-done)
}

// forbid installs a filter of system calls for the calling thread (seccomp(2)).
func forbid(call uint32, errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number stands first in struct seccomp_data
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
