package splice

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pipeSize is what a pipe takes, the kernel's default. Larger pipes cost more of the machine's time per byte:
// on two cores, kernel 6.18, 64 KiB had the best throughput and the least CPU for one bulk flow over veth.
const pipeSize = 64 << 10

// maxPipes bounds the pipes of a loop: two descriptors and, when full, 64 KiB of kernel memory each. Pumps
// beyond it go on copying.
const maxPipes = 256

// maxFreePipes is how many empty pipes are kept for the next pump that streams.
const maxFreePipes = 8

// pipe is what splice(2) moves bytes through. Whoever holds it owns both descriptors.
type pipe struct{ r, w int }

// pipePool lends pipes to the pumps of one loop. On entry and exit of its methods, free pipes are empty.
type pipePool struct {
	free []*pipe
	open atomic.Uint64 // pipes that exist, lent ones included; read from anywhere
}

// get lends an empty pipe, or nil when there is none to be had: the bound is reached, descriptors ran out, or
// the user's pages did (beyond pipe-user-pages-soft, pipe(7), a new pipe has one or two slots and is worthless).
func (p *pipePool) get() *pipe {
	if n := len(p.free); n > 0 {
		last := p.free[n-1]
		p.free = p.free[:n-1]
		return last
	}
	if p.open.Load() >= maxPipes {
		return nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil
	}
	p.open.Add(1)
	fresh := &pipe{r: fds[0], w: fds[1]}
	if size, err := unix.FcntlInt(uintptr(fresh.w), unix.F_GETPIPE_SZ, 0); err != nil || size < pipeSize {
		p.destroy(fresh)
		return nil
	}
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
