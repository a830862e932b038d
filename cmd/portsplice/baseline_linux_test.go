package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestNothingIsLeftOfManyConnections makes 100,000 connections, eight at a time, that end in several ways. Then the
// program has the descriptors that it had before, and hardly more memory: 100,000 pairs have 40 MB. (The namespace is
// for their ports, which rest for a minute.)
func TestNothingIsLeftOfManyConnections(t *testing.T) {
	const visitors, warmUp, visits, mostKB = 8, 250, 5_000, 8 << 10 // visits for each visitor
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			host := rig.Namespace(t)
			var p *process
			var frontend netip.AddrPort
			must(t, host.Do(func() error {
				frontend = freePort(t, "tcp", loopbackV4)
				p = run{args: arguments("tcp", frontend, echo(t, "tcp", loopbackV4), "-engine", engine)}.serve(t)
				return nil
			}))
			visit := func(times int) {
				var all sync.WaitGroup
				for i := range visitors {
					v := visitor{number: byte(i), to: frontend}
					all.Go(func() { rig.Check(t, host.Do(func() error { return v.visit(times) })) })
				}
				all.Wait()
				until(t, "all connections have ended, and the loop that was added for them", func() bool {
					c := p.counters(t)
					return c["active"] == "0" && c["loops"] != "2"
				})
			}
			visit(warmUp)
			descriptors, memory := p.descriptors(t), p.privateKB(t)
			visit(visits)
			// A loop at rest has one more, a duplicate for Go's poller; it may have been so before, or be so now.
			if now := p.descriptors(t); now < descriptors-1 || now > descriptors+1 {
				t.Errorf("%d descriptors are open, want %d as before", now, descriptors)
			}
			more := p.privateKB(t) - memory
			t.Logf("%d kB of private memory more than before", more)
			if more > mostKB {
				t.Errorf("the program has %d kB of private memory more than before, want %d at most", more, mostKB)
			}
			if c := p.counters(t); c["accepted"] != fmt.Sprint(visitors*(warmUp+visits)) || c["dial-errors"] != "0" {
				t.Errorf("%v; want %d connections accepted and no failed dial", c, visitors*(warmUp+visits))
			}
		})
	}
}

// visitor makes connections one after another, by system calls alone: for so many, package net and the race detector
// are too slow.
type visitor struct {
	number byte
	to     netip.AddrPort
}

// visit ends one connection of four in order, and the others by a reset, one of them without a word.
func (v visitor) visit(times int) error {
	for i := range times {
		// Another client address from time to time, so that there are always ports.
		from := netip.AddrFrom4([4]byte{127, 1, v.number, byte(1 + i/1000)})
		if err := v.connect(from, i%4 != 0, i%4 != 1); err != nil {
			return fmt.Errorf("visitor %d, connection %d: %w", v.number, i, err)
		}
	}
	return nil
}

func (v visitor) connect(from netip.Addr, reset, speak bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }() // how it ends is the other side's to tell
	var linger unix.Linger
	if reset {
		linger.Onoff = 1
	}
	patience := unix.NsecToTimeval(timeout.Nanoseconds()) // its fields' types differ
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}),
	)
	if err != nil {
		return fmt.Errorf("socket from %v: %w", from, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: v.to.Addr().As4(), Port: int(v.to.Port())}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if speak {
		return exchangeOn(fd)
	}
	return nil
}

func exchangeOn(fd int) error {
	var b [64]byte
	if err := unix.Sendto(fd, b[:], unix.MSG_NOSIGNAL, nil); err != nil {
		return os.NewSyscallError("send", err)
	}
	for n := 0; n < len(b); {
		more, _, err := unix.Recvfrom(fd, b[n:], 0)
		switch {
		case errors.Is(err, unix.EINTR): // SO_RCVTIMEO keeps the kernel from going on by itself (signal(7))
		case err != nil:
			return fmt.Errorf("%d of %d bytes came back: %w", n, len(b), os.NewSyscallError("recv", err))
		case more == 0:
			return fmt.Errorf("%d of %d bytes came back: %w", n, len(b), io.ErrUnexpectedEOF)
		default:
			n += more
		}
	}
	return nil
}
