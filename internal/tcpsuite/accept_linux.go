package tcpsuite

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// whatAcceptAnswers is every errno of accept(2), beside those that no program can get.
var whatAcceptAnswers = []unix.Errno{
	unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, // nothing can be accepted for a while
	unix.ECONNABORTED, unix.EPERM, unix.EPROTO, // this one connection cannot be accepted
	unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH,
	unix.ENOSR, unix.ESOCKTNOSUPPORT, unix.EPROTONOSUPPORT, unix.ETIMEDOUT, // "various Linux kernels can return"
}

// acceptErrors: whatever accept(2) answers, the port survives, each failure is counted and reported, and the clients
// that wait are served when it is over.
func acceptErrors(t *testing.T, e Engine) {
	const failures, clients = 3, 2
	for _, errno := range whatAcceptAnswers {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			var reported reports
			o := Options{AcceptErrors: slices.Repeat([]unix.Errno{errno}, failures), Report: reported.add}
			p := startWith(t, e, o, rig.Backend(t, rig.Echo))
			for range clients {
				rig.Exchange(t, dial(t, p), []byte("hello"))
			}
			if s := p.Stats(); s.AcceptErrors != failures || s.Accepted != clients || s.Aborted != 0 {
				t.Errorf("%+v; want %d accept errors and %d connections", s, failures, clients)
			}
			all := reported.get()
			if len(all) != failures {
				t.Errorf("%d failures are reported, want %d", len(all), failures)
			}
			for _, f := range all {
				if f.op != "accept" || !errors.Is(f.err, errno) {
					t.Errorf("reported %+v; want an accept that failed with %v", f, errno)
				}
			}
		})
	}
}
