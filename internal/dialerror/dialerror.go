// Package dialerror sorts why a backend could not be reached, for the counters of the engines.
package dialerror

import (
	"errors"
	"net"
	"syscall"
)

// Kind is why.
type Kind uint8

// The kinds.
const (
	Other       Kind = iota
	Refused          // nobody listens at the backend
	Timeout          // it has not answered in time
	Unreachable      // there is no route to it, or its host does not answer
	Exhausted        // this host has no descriptor, memory or source port left for it
	Kinds            // how many there are
)

var kinds = map[syscall.Errno]Kind{
	syscall.ECONNREFUSED:  Refused,
	syscall.ETIMEDOUT:     Timeout,
	syscall.EHOSTUNREACH:  Unreachable,
	syscall.EHOSTDOWN:     Unreachable,
	syscall.ENETUNREACH:   Unreachable,
	syscall.ENETDOWN:      Unreachable,
	syscall.EADDRNOTAVAIL: Exhausted,
	syscall.EMFILE:        Exhausted,
	syscall.ENFILE:        Exhausted,
	syscall.ENOBUFS:       Exhausted,
	syscall.ENOMEM:        Exhausted,
}

// KindOf sorts the error of a dial.
func KindOf(err error) Kind {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return kinds[errno]
	}
	var timeout net.Error // os.ErrDeadlineExceeded is one, and so is context.DeadlineExceeded
	if errors.As(err, &timeout) && timeout.Timeout() {
		return Timeout
	}
	return Other
}
