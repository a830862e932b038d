package splice

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pipeSize is what a pipe is made to take. Each page of a socket's data takes a slot, so this is how much one splice
// moves at the most. With 64 KiB 8 flows have 0.8 of the throughput of io.Copy and twice the CPU time per GB; from
// 256 KiB to 1 MiB the sizes differ by less than the noise with cubic, and with BBR 512 KiB was the best
// (docs/performance.md). A larger pipe counts for more of the user's pages.
const pipeSize = 512 << 10

// minPipeSize is the kernel's default, and what a pipe must take at least to be of use. Beyond pipe-user-pages-soft
// (pipe(7)) a user's pipes cannot be made larger, and then new ones have one or two slots.
const minPipeSize = 64 << 10

// maxPipes bounds the pipes of a loop: two descriptors each and, when full, pipeSize of kernel memory. Pumps beyond it
// go on copying.
const maxPipes = 256

// maxFreePipes is how many empty pipes are kept for the next pump that streams.
const maxFreePipes = 8

// pipe is what splice(2) moves bytes through. Whoever holds it owns both descriptors.
type pipe struct{ r, w, size int }

// pipePool lends pipes to the pumps of one loop. On entry and exit of its methods, free pipes are empty.
type pipePool struct {
	free []*pipe
	open atomic.Uint64 // pipes that exist, lent ones included; read from anywhere
}

// get lends an empty pipe, or nil when there is none to be had: the bound is reached, or descriptors or the user's
// pages have run out.
func (p *pipePool) get(k kernel) *pipe {
	if n := len(p.free); n > 0 {
		last := p.free[n-1]
		p.free = p.free[:n-1]
		return last
	}
	if p.open.Load() >= maxPipes {
		return nil
	}
	r, w, errno := k.pipe()
	if errno != 0 {
		return nil
	}
	p.open.Add(1)
	fresh := &pipe{r: r, w: w}
	_, _ = unix.FcntlInt(uintptr(fresh.w), unix.F_SETPIPE_SZ, pipeSize) // what came of it is read back
	size, err := unix.FcntlInt(uintptr(fresh.w), unix.F_GETPIPE_SZ, 0)
	if err != nil || size < minPipeSize {
		p.destroy(fresh)
		return nil
	}
	fresh.size = size
	return fresh
}

// put takes back a pipe that is empty.
func (p *pipePool) put(empty *pipe) {
	if len(p.free) >= maxFreePipes {
		p.destroy(empty)
		return
	}
	p.free = append(p.free, empty)
}

// destroy closes a pipe, with the bytes that it may hold.
func (p *pipePool) destroy(used *pipe) {
	closeFD(used.r)
	closeFD(used.w)
	p.open.Add(^uint64(0))
}

// close closes the free pipes. Lent ones are their pumps' to destroy.
func (p *pipePool) close() {
	for _, free := range p.free {
		p.destroy(free)
	}
	p.free = nil
}
