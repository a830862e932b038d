package udp

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/portsplice/portsplice/internal/sourceport"
)

const (
	// numberTries bounds how many source ports in a row are tried that others turn out to have. If they have half of the
	// pool, one search in 65,000 comes to that.
	numberTries = 16

	// guestPart is the part of the host's range of which a port that nobody sized may have flows when nothing of the pool
	// is to be had: 110 of 28,232. So it is served while others flood, and 100 ports that do leave the host its resolver.
	guestPart = 256
)

// errNoNumber is why a flow is not opened without another going: the pool has no source port that is free.
var errNoNumber = fmt.Errorf("the source ports for UDP are in use: %w", syscall.EADDRNOTAVAIL)

// shareOfPorts bounds a table to its share of the pool, of which one port leaves a quarter to the others, and gives the
// number of flows up to which the kernel may choose instead. Where the system does not tell its range, it always does.
func shareOfPorts(flows int) (most, guests int) {
	size, of := sourceport.UDP.Size()
	if size == 0 {
		return flows, flows
	}
	return max(1, min(flows, size/4*3)), max(1, of/guestPart)
}

// fromNumber opens a socket by dial: from a source port of the pool, or for a guest from one that the kernel chooses,
// which is zero. Need is that there will be no other try: it may be one that has not rested, or the kernel's for whoever.
func fromNumber[S any](pool *sourceport.Pool, need, guest bool, dial func(number uint16) (S, error)) (
	socket S, number uint16, err error) {
	for range numberTries {
		if number = pool.Take(need); number == 0 {
			break
		}
		if socket, err = dial(number); err == nil {
			return socket, number, nil
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			pool.Taken(number)
			continue
		}
		pool.Return(number)
		if !refusedBind(err) {
			return socket, 0, err
		}
		guest = true // a sandbox, which may let the kernel choose
		break
	}
	if !guest && !need {
		return socket, 0, errNoNumber
	}
	socket, err = dial(0)
	return socket, 0, err
}

// refusedBind tells whether it is bind(2) that failed.
func refusedBind(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call) && call.Syscall == "bind"
}
