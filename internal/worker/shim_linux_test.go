package worker

import (
	"testing"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/rig"
)

// heard is a handler that tells of events.
type heard chan uint32

func (h heard) Ready(events uint32) { h <- events }

// TestEndBeforeReady: a port that ends before its shim is told that it is served tells so afterwards.
func TestEndBeforeReady(t *testing.T) {
	loops, err := eventloop.New(eventloop.Options{})
	rig.Must(t, err)
	defer loops.Close()
	theirs, ours := pair(t)
	s := shim{loop: loops.First()}
	s.tell("1\nit has ended\n")
	rig.Must(t, s.keep(ours, make(heard, 1), ready, nil))
	rig.Must(t, ours.Close())
	for _, want := range []string{ready, "1\nit has ended\n"} {
		var b [100]byte
		n, err := theirs.Read(b[:])
		if got := string(b[:n]); got != want || err != nil {
			t.Errorf("the shim hears %q, %v; want %q", got, err, want)
		}
	}
	s.ignore()
	s.close()
}
