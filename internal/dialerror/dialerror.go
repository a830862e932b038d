// Package dialerror sorts and counts why a backend could not be reached, for the engines.
package dialerror

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
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

// Counts are how often backends could not be reached: in all, and for each reason that is told apart.
type Counts struct {
	DialErrors      uint64
	DialRefused     uint64 // nobody listens at the backend
	DialTimeouts    uint64 // it did not answer in time
	DialUnreachable uint64 // there is no route to it, or its host does not answer
	DialExhausted   uint64 // no descriptor, memory or source port was left
}

// Sum adds those of two ports, or of two parts of one.
func Sum(c, o Counts) Counts {
	c.DialErrors += o.DialErrors
	c.DialRefused += o.DialRefused
	c.DialTimeouts += o.DialTimeouts
	c.DialUnreachable += o.DialUnreachable
	c.DialExhausted += o.DialExhausted
	return c
}

// String gives the counts as "name=value" words.
func (c Counts) String() string {
	return fmt.Sprintf("dial-errors=%d dial-refused=%d dial-timeouts=%d dial-unreachable=%d dial-exhausted=%d",
		c.DialErrors, c.DialRefused, c.DialTimeouts, c.DialUnreachable, c.DialExhausted)
}

// Counters count. Any goroutine may use them.
type Counters [Kinds]atomic.Uint64

// Add counts the error of a dial.
func (c *Counters) Add(err error) { c[KindOf(err)].Add(1) }

// Read reads them one by one.
func (c *Counters) Read() Counts {
	counts := Counts{
		DialRefused:     c[Refused].Load(),
		DialTimeouts:    c[Timeout].Load(),
		DialUnreachable: c[Unreachable].Load(),
		DialExhausted:   c[Exhausted].Load(),
	}
	counts.DialErrors = c[Other].Load() +
		counts.DialRefused + counts.DialTimeouts + counts.DialUnreachable + counts.DialExhausted
	return counts
}
