package main

import (
	"os"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestPipesOfTheUserUsedUp_capnproto1403 runs the program as a user who holds all pipe pages already that the kernel
// allows an ordinary one (pipe-user-pages-soft in pipe(7)). Bytes are copied then, and spliced when there are pages
// again.
func TestPipesOfTheUserUsedUp_capnproto1403(t *testing.T) {
	frontend := freePort(t, "tcp", ours())
	r := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", "splice")}
	user := os.Geteuid()
	if user == 0 { // who has no limit
		user = 1_000_000 + os.Getpid() // nobody else's
		r.user = uint32(user)
	}
	release := holdPipes(t, user)
	p := r.serve(t)
	rig.Exchange(t, dial(t, "tcp", frontend), random(bulk))
	until(t, "all bytes are counted as copied", func() bool { return p.count(t, "copied") == 2*bulk })
	if p.count(t, "spliced") != 0 || p.count(t, "pipes-refused") == 0 {
		t.Errorf("%v; want nothing spliced and pipes refused", p.counters(t))
	}
	release()
	rig.Exchange(t, dial(t, "tcp", frontend), random(bulk))
	until(t, "bytes are spliced", func() bool { return p.count(t, "spliced") > 0 })
}

// holdPipes takes all pipe pages of a user, and gives what returns them.
func holdPipes(t *testing.T, user int) (release func()) {
	t.Helper()
	var held []int
	release = sync.OnceFunc(func() {
		for _, fd := range held {
			must(t, unix.Close(fd))
		}
	})
	t.Cleanup(release)
	var errno unix.Errno
	rig.AsUser(t, user, func() {
		for errno == 0 {
			var ends [2]int32
			_, _, errno = unix.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&ends)), unix.O_CLOEXEC, 0)
			if errno == 0 {
				held = append(held, int(ends[0]), int(ends[1]))
				const most = 1 << 20 // /proc/sys/fs/pipe-max-size, by default
				_, _, errno = unix.RawSyscall(unix.SYS_FCNTL, uintptr(ends[0]), unix.F_SETPIPE_SZ, most)
			}
		}
	})
	if errno != unix.EPERM {
		t.Fatalf("after %d pipes: %v, want %v", len(held)/2, errno, unix.EPERM)
	}
	return release
}
