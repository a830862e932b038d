package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pour streams datagrams at a fixed rate, whatever becomes of them, and measures what arrives.
func pour(r request) (values, error) {
	s := &streams{failed: make(chan error, 1)}
	var err error
	if s.counts, err = dial(r.counts, tellCount); err != nil {
		return nil, err
	}
	t, err := openTap(r.to, r.size, r.offered)
	if err != nil {
		return nil, err
	}
	go func() { s.failed <- t.flow(&s.offered) }()
	if err := s.wait(r.warmup); err != nil {
		return nil, err
	}
	return s.measure(r)
}

// tap is a source of datagrams. The kernel is given blocks of them to cut (UDP_SEGMENT).
type tap struct {
	fd       int
	block    []byte
	interval time.Duration // between blocks
}

func openTap(to netip.AddrPort, size int, gigabits float64) (*tap, error) {
	if size < 1 || size > maxDatagram || gigabits <= 0 {
		return nil, fmt.Errorf("no stream of %v Gbit/s in datagrams of %d bytes", gigabits, size)
	}
	fd, err := dialUDP(sockaddr(to))
	if err == nil {
		err = os.NewSyscallError("setsockopt UDP_SEGMENT",
			unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size))
	}
	const segments = 64 // UDP_MAX_SEGMENTS of kernels before 6.6
	t := &tap{fd: fd, block: make([]byte, size*min(segments, maxDatagram/size))}
	t.interval = time.Duration(8 * float64(len(t.block)) / gigabits) // bits by bits per nanosecond
	return t, err
}

// flow sends a block whenever it is time for one, and counts the bytes. What could not be sent for a while is sent in a
// burst, but no more of it than burst.
func (t *tap) flow(sent *atomic.Int64) error {
	const burst = time.Millisecond
	runtime.LockOSThread() // the precision of timers is a thread's own
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_TIMERSLACK", err)
	}
	start := time.Now()
	for next := time.Duration(0); ; next += t.interval {
		late := time.Since(start) - next
		if late < 0 {
			nap(-late)
		} else if late > burst {
			next += late - burst
		}
		n, errno := write(t.fd, t.block)
		if errno != 0 {
			return os.NewSyscallError("write", errno)
		}
		sent.Add(int64(n))
	}
}

// nap sleeps as precisely as the kernel can, which is more than Go's timers do.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_, _ = call(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0, 0) // the next block is late at worst
}
