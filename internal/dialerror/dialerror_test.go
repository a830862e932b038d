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
