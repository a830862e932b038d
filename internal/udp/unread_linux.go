package udp

import (
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/udp/flows"
)

// mostUnread bounds how many batches are read of a flow that closes: 32,768 messages, as many as a socket of 24 MiB
// holds: there is an end also where they come as fast as they are read.
const mostUnread = 1024

// unread says whether the backend has sent something that the flow's loop, if that is not the home l, has not read yet.
// At home it has been looked for: deadlines wait for it.
func (f *flow) unread(l *lane) bool {
	if f.at.Load() == l {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return waiting(int(f.fd))
}

// waiting says whether there is something to be read.
func waiting(fd int) bool {
	ready := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(ready[:], 0)
	return err == nil && n > 0 && ready[0].Revents&unix.POLLIN != 0
}

// takeUnread reads what the backend has sent to a flow and nobody has read, from the socket fd, which was taken from it:
// one batch goes to the client, and what is beyond that is dropped. It is called where the port's table may be used.
func (p *Port) takeUnread(f *flow, fd int) {
	if !waiting(fd) {
		return
	}
	if home := p.home.Load(); home != nil && home.out.way == toClients {
		home.flush() // earlier answers
	}
	// The home's own buffers may hold requests: the flow may have to go for the client of one of them. And what the
	// flow knows of blocks is of the loop that it is on.
	spare := &lane{arena: newArena()}
	defer spare.arena.release()
	last := &flow{Tracking: flows.Tracking[flowKey]{Key: f.Key}, settings: f.settings, nowhere: f.nowhere}
	delivered, dropped := false, 0
	for range mostUnread {
		for i := range batch {
			spare.in.prepare(i, spare.arena.buffer(i), false)
		}
		n, errno := p.kernel.receive(fd, spare.in.messages[:])
		if p.count.countRefusal(errno); lasting(errno) || errno == unix.EAGAIN {
			break
		}
		for i := range n {
			told := spare.in.ancillary(i)
			p.countLost(&f.lost, told)
			if delivered {
				dropped += datagramsIn(spare.in.size(i), told.segment)
			} else {
				spare.put(last, i, i, told, toClients)
			}
		}
		spare.flush()
		delivered = delivered || n > 0
	}
	f.bytes[toClients].Add(last.bytes[toClients].Load()) // the flow's loop may be counting
	if dropped > 0 {
		last.lose(dropped, toClients, errUnread)
	}
}
