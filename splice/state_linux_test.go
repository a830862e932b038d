package splice

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestStates: the tables of the package documentation are what the code does.
func TestStates(t *testing.T) {
	compareStates(t, "event", pairState.after,
		[]string{"expecting", "dialing", "relaying", "parting", "aborting", "flushing", "lost", "closed"},
		[]string{"clientKnown", "backendConnected", "legReset", "legFailed", "delivered", "gone"})
	compareStates(t, "verdict", pumpState.after,
		[]string{"empty", "queued", "holding", "over"},
		[]string{"more", "drained", "awaitSource", "awaitDestination", "departed", "finished", "sourceFailed", "destinationFailed",
			"abandoned"})
}

// compareStates compares the table whose second column has that heading. The names are those of the constants, in order.
func compareStates[S, E ~uint8](t *testing.T, heading string, after func(S, E) S, states, events []string) {
	t.Helper()
	documented := documentedStates(t, heading, states)
	for s, state := range states {
		for e, event := range events {
			want, changes := documented[[2]string{state, event}]
			if !changes {
				want = state
			}
			if got := states[after(S(s), E(e))]; got != want {
				t.Errorf("%s, %s: %s is next, and the documentation has %s", state, event, got, want)
			}
			delete(documented, [2]string{state, event})
		}
	}
	for unknown := range documented {
		t.Errorf("the documentation has %v, which there is not", unknown)
	}
}

// documentedStates gives the next state by state and event.
func documentedStates(t *testing.T, heading string, states []string) map[[2]string]string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	rig.Must(t, err)
	table := regexp.MustCompile(`\n//\tstate +` + heading + ` +next\n//\n((?://\t.*\n)+)`).FindSubmatch(text)
	if table == nil {
		t.Fatalf("the documentation has no table of a state, %s, and what is next", heading)
	}
	next := make(map[[2]string]string)
	for line := range strings.Lines(string(table[1])) {
		columns := regexp.MustCompile(`\s{2,}`).Split(strings.TrimSpace(strings.TrimPrefix(line, "//")), -1)
		from := strings.Split(columns[0], ", ")
		if columns[0] == "any" {
			from = states
		}
		for _, state := range from {
			for _, event := range strings.Split(columns[1], ", ") {
				next[[2]string{state, event}] = columns[2]
			}
		}
	}
	return next
}

// fixed is a kernel where what a descriptor is watched for cannot be changed.
type fixed struct{ linux }

func (fixed) rewatch(*eventloop.Loop, eventloop.Handle, int, uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.ENOMEM)
}

// TestRoomCannotBeWatched: a pair that would never hear of its destination again is reset, and says why.
func TestRoomCannotBeWatched(t *testing.T) {
	for _, policy := range []Policy{Never, Always} {
		reports := make(chan error, 1)
		o := Options{Policy: policy, Report: func(_ string, _, _ netip.AddrPort, err error) { reports <- err }}
		l, port := testLoop(t, o, fixed{})
		_, ends := join(t, l, port)
		go func() { _, _ = ends.backend.Write(make([]byte, 16<<20)) }() // until it is reset
		if err := <-reports; !errors.Is(err, unix.ENOMEM) {
			t.Errorf("%v is reported, want %v", err, unix.ENOMEM)
		}
		if _, err := io.Copy(io.Discard, ends.client); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
		rig.Until(t, "the pair ends", func() bool { return port.Stats().Active == 0 })
		if s := port.Stats(); s.Aborted != 1 {
			t.Errorf("%v; want 1 aborted", s)
		}
	}
}
