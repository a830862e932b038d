package splice

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// pipeSize is what a pipe is made to take. Each page of a socket's data takes a slot, so this is how much one splice
// moves at the most. Beside an exchange the proxy takes 1.6 to 1.7 times the CPU per byte with 128 KiB in place of 512, and 0.77 to
// 0.98 with 1 MiB (cubic; docs/performance.md). By default it is what the kernel lets any user ask for (fs.pipe-max-size); who may
// have less has the half of it, or of that.
const pipeSize = 1 << 20

// minPipeSize is the kernel's default, and what a pipe must take at least to be of use. Beyond pipe-user-pages-soft
// (pipe(7)) a user's pipes cannot be made larger, and then new ones have one or two slots.
const minPipeSize = 64 << 10

// maxPipes bounds the pipes of an engine: two descriptors each and, when full, pipeSize of kernel memory. Pumps beyond it
// go on copying.
const maxPipes = 512

// trimAfter is how long a pipe is kept that nobody needs. It is far longer than the pauses of a stream.
const trimAfter = time.Second

// pipe is what splice(2) moves bytes through. Whoever holds it owns both descriptors.
type pipe struct{ r, w, size int }

// pipePool lends pipes to the pumps of one loop. On entry and exit of its methods, free pipes are empty.
type pipePool struct {
	loop   *eventloop.Loop
	free   []*pipe
	unused int            // the fewest that were free since the last trim
	open   *atomic.Uint64 // pipes of the engine, lent ones included
	timer  eventloop.Timer
}

// get lends an empty pipe, or nil when there is none to be had: the bound is reached, or descriptors or the user's
// pages have run out. The one that was used last is the first to be lent again: its pages are in the CPU's caches.
func (p *pipePool) get(k kernel) *pipe {
	if n := len(p.free); n > 0 {
		last := p.free[n-1]
		p.free = p.free[:n-1]
		p.unused = min(p.unused, n-1)
		return last
	}
	if p.open.Add(1) > maxPipes {
		p.open.Add(^uint64(0))
		return nil
	}
	r, w, errno := k.pipe()
	if errno != 0 {
		p.open.Add(^uint64(0))
		return nil
	}
	fresh := &pipe{r: r, w: w}
	for size := pipeSize; size > minPipeSize; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(fresh.w), unix.F_SETPIPE_SZ, size); err == nil {
			break
		}
	}
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
	p.free = append(p.free, empty)
	if !p.timer.Set() {
		p.unused = len(p.free)
		p.loop.SetTimer(&p.timer, p, p.loop.Now()+trimAfter)
	}
}

// Ring closes the pipes that nobody has needed since it rang last.
func (p *pipePool) Ring(now time.Duration) {
	p.trim(p.unused)
	if p.unused = len(p.free); p.unused > 0 {
		p.loop.SetTimer(&p.timer, p, now+trimAfter)
	}
}

// trim closes n free pipes, of those that were used longest ago.
func (p *pipePool) trim(n int) {
	for _, unused := range p.free[:n] {
		p.destroy(unused)
	}
	p.free = append(p.free[:0], p.free[n:]...)
}

// destroy closes a pipe, with the bytes that it may hold.
func (p *pipePool) destroy(used *pipe) {
	closeFD(used.r)
	closeFD(used.w)
	p.open.Add(^uint64(0))
}
