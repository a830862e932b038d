package splice

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestHeldAfterAHangUp: a client has ended its direction and does not read; the backend has sent more than fits on the
// way, and closed. A hang-up cannot be masked, and a loop that had epoll look anew would spin until the client reads.
func TestHeldAfterAHangUp(t *testing.T) {
	l := testLoop(t, Options{Policy: Always}, linux{})
	defer func() { l.ended = true; l.run() }()
	pr, ends := join(t, l)
	client, backend, back := ends.client, ends.backend, pr.back.fd
	rig.Check(t, client.CloseWrite())
	rig.Until(t, "the client's end is passed on", func() bool { takeTurn(l); return pr.up.over })
	if _, err := backend.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the backend read %v, want the end", err)
	}
	for !pr.down.holding() {
		_, err := backend.Write(make([]byte, 64<<10))
		rig.Must(t, err)
		takeTurn(l)
	}
	rig.Check(t, backend.Close())
	rig.Until(t, "the backend's end arrives", func() bool {
		takeTurn(l)
		info, err := unix.GetsockoptTCPInfo(back, unix.IPPROTO_TCP, unix.TCP_INFO)
		rig.Must(t, err)
		return info.State == unix.BPF_TCP_CLOSE
	})
	if pr.down.piped == 0 {
		t.Error("the pump holds nothing in a pipe")
	}
	const forever = 100 // events in a row, with nobody who causes them
	events := 0
	for events < forever && takeTurn(l) > 0 {
		events++
	}
	if events == forever {
		t.Error("the loop does not come to rest")
	}
}

// takeTurn serves what is ready, and says how many events that was.
func takeTurn(l *loop) int {
	ready := l.epoll.wait(0)
	l.dispatch(ready)
	return len(ready)
}
