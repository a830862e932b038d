package tcpsuite

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
)

// passing is what socket(2) answers when something has run out that comes back.
var passing = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS}

// descriptorsComeBack: clients wait while there is no socket for their backend, and are served when there is.
func descriptorsComeBack(t *testing.T, e Engine) {
	const failures, clients = 3, 2
	for _, errno := range passing {
		t.Run(errno.Error(), func(t *testing.T) {
			p := startWith(t, e, Options{SocketErrors: slices.Repeat([]syscall.Errno{errno}, failures)}, rig.Backend(t, rig.Echo))
			for range clients {
				rig.Exchange(t, dial(t, p), []byte("hello"))
			}
			if s := p.Stats(); s.DialErrors != 0 || s.Accepted != clients {
				t.Errorf("%+v; want %d connections and no dial errors", s, clients)
			}
		})
	}
}

// descriptorsDoNotComeBack: a client for whose backend there is no socket waits for as long as a dial may take, and is
// reset, with a line.
func descriptorsDoNotComeBack(t *testing.T, e Engine) {
	for _, errno := range passing {
		t.Run(errno.Error(), func(t *testing.T) {
			const forEver = 10_000
			var reported reports
			p := startWith(t, e, Options{
				DialTimeout: 100 * time.Millisecond, SocketErrors: slices.Repeat([]syscall.Errno{errno}, forEver), Report: reported.add,
			}, rig.Backend(t, rig.Echo))
			rig.WantReset(t, p.Addr)
			rig.Until(t, "the failure is reported", func() bool {
				return slices.ContainsFunc(reported.get(), func(f failure) bool {
					return f.client.Addr().IsValid() && errors.Is(f.err, errno)
				})
			})
			pairsEnd(t, p)
		})
	}
}

// socketsAreForbidden: a client for whose backend there will never be a socket is reset at once, with a line, and not tried
// again; the next one is served if there is.
func socketsAreForbidden(t *testing.T, e Engine) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EAFNOSUPPORT} {
		t.Run(errno.Error(), func(t *testing.T) {
			var reported reports
			p := startWith(t, e, Options{SocketErrors: []syscall.Errno{errno}, Report: reported.add}, rig.Backend(t, rig.Echo))
			rig.WantReset(t, p.Addr)
			rig.Exchange(t, dial(t, p), []byte("hello"))
			all := reported.get()
			if len(all) != 1 || all[0].op != "dial" || !errors.Is(all[0].err, errno) {
				t.Errorf("reported %v; want one dial that failed with %v", all, errno)
			}
			if s := p.Stats(); s.DialErrors != 1 {
				t.Errorf("%+v; want 1 dial error", s)
			}
		})
	}
}

// acceptIsForbidden: a port whose clients cannot be accepted for as long as a dial may take ends, with the reason, so that
// they do not wait without bound.
func acceptIsForbidden(t *testing.T, e Engine) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES} {
		t.Run(errno.Error(), func(t *testing.T) {
			const forEver = 10_000
			o := Options{DialTimeout: 100 * time.Millisecond, AcceptErrors: slices.Repeat([]syscall.Errno{errno}, forEver)}
			p := startWith(t, e, o, rig.Backend(t, rig.Echo))
			dial(t, p)
			select {
			case err := <-p.Ended:
				if !errors.Is(err, errno) {
					t.Errorf("the port ended by %v, want %v", err, errno)
				}
			case <-time.After(rig.Timeout):
				t.Errorf("the port has not ended: %+v", p.Stats())
			}
			if s := p.Stats(); s.AcceptErrors < 2 {
				t.Errorf("%+v; want that accept was tried again", s)
			}
		})
	}
}
