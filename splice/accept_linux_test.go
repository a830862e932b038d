package splice

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestFailingAcceptDoesNotSpin lets a client wait for a port whose loop cannot accept, and has the loop turn many
// times: it tries again once in a tick.
func TestFailingAcceptDoesNotSpin(t *testing.T) {
	for _, test := range []struct {
		name   string
		kernel exhausted
	}{
		{"no socket for the backend", exhausted{socketErrno: unix.EMFILE}},
		{"no descriptor for the client", exhausted{acceptErrno: unix.ENFILE}},
		{"no memory for the client", exhausted{acceptErrno: unix.ENOMEM}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := New(Options{})
			rig.Must(t, err)
			defer func() { rig.Check(t, e.Close()) }()
			e.kernel = test.kernel
			fd, addr := rig.Bind(t, rig.Loopback)
			begin := time.Now()
			_, err = e.Add(fd, rig.Address(rig.Listen(t, rig.Loopback)))
			rig.Must(t, err)
			rig.Dial(t, "tcp", addr)
			rig.Until(t, "accept fails", func() bool { return e.Stats().AcceptErrors > 0 })
			for range 1000 {
				e.group.First().Do(func() {})
			}
			most := 2 + uint64(time.Since(begin)/acceptPause)
			if s := e.Stats(); s.AcceptErrors > most || s.Accepted != 0 {
				t.Errorf("%v; want %d accept errors at the most", s, most)
			}
		})
	}
}

// exhausted is a kernel that has run out of something.
type exhausted struct {
	linux
	socketErrno, acceptErrno unix.Errno
}

func (x exhausted) socket(family int) (int, unix.Errno) {
	if x.socketErrno != 0 {
		return -1, x.socketErrno
	}
	return x.linux.socket(family)
}

func (x exhausted) accept(int, *unix.RawSockaddrAny) (int, unix.Errno) { return -1, x.acceptErrno }
