package udp

import (
	"os"

	"golang.org/x/sys/unix"
)

// batch is how many messages are received or sent by one system call at most: what a turn of the loop takes from a
// socket, and what bounds how long the others wait for it.
const batch = 32

// stride is from one buffer of the arena to the next. With a power of two all of them would begin in the same sets of
// the CPU's caches.
const stride = maxDatagram + 4096 + 512

// arena is memory for a batch of messages of any size. It is outside of Go's heap, so that the pages that were
// written to can be given back, and takes up none before.
type arena struct {
	memory  []byte
	written bool // to more than the first page
}

func newArena() (arena, error) {
	memory, err := unix.Mmap(-1, 0, batch*stride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return arena{}, os.NewSyscallError("mmap", err)
	}
	// A first byte would take 2 MiB where huge pages are always used. Where there are none this fails, and is not needed.
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE)
	return arena{memory: memory}, nil
}

// buffer returns one of the buffers.
func (a *arena) buffer(i int) []byte { return a.memory[i*stride:][:maxDatagram] }

// noteWritten is told how far buffer i was written to.
func (a *arena) noteWritten(i, bytes int) {
	if i > 0 || bytes > os.Getpagesize() {
		a.written = true
	}
}

// trim gives the pages back.
func (a *arena) trim() {
	a.written = false
	_ = unix.Madvise(a.memory, unix.MADV_DONTNEED) // cannot fail for memory that is mapped
}

// release ends the arena's life.
func (a *arena) release() {
	_ = unix.Munmap(a.memory) // cannot fail for memory that is mapped
}
