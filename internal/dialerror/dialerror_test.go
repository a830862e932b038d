package dialerror_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/dialerror"
)

func TestKindOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want dialerror.Kind
	}{
		{os.NewSyscallError("connect", syscall.ECONNREFUSED), dialerror.Refused},
		{syscall.ETIMEDOUT, dialerror.Timeout},
		{fmt.Errorf("no answer: %w", os.ErrDeadlineExceeded), dialerror.Timeout},
		{context.DeadlineExceeded, dialerror.Timeout},
		{syscall.EHOSTUNREACH, dialerror.Unreachable},
		{syscall.ENETUNREACH, dialerror.Unreachable},
		{syscall.EADDRNOTAVAIL, dialerror.Exhausted},
		{syscall.EMFILE, dialerror.Exhausted},
		{syscall.EACCES, dialerror.Other},
		{errors.New("the backend is the port itself"), dialerror.Other},
	} {
		if got := dialerror.KindOf(test.err); got != test.want {
			t.Errorf("%v is of kind %d, want %d", test.err, got, test.want)
		}
	}
}

// TestCounters: each failure is counted by its kind and in the sum.
func TestCounters(t *testing.T) {
	var c dialerror.Counters
	for n, err := range []error{
		errors.New("other"), syscall.ECONNREFUSED, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.EMFILE,
	} {
		for range n + 1 {
			c.Add(err)
		}
	}
	const want = "dial-errors=30 dial-refused=4 dial-timeouts=6 dial-unreachable=8 dial-exhausted=10"
	if got := dialerror.Sum(c.Read(), c.Read()).String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
