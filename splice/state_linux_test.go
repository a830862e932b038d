package splice

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestStates: the tables of the package documentation are what the code does.
func TestStates(t *testing.T) {
	states := [pairStates]string{"expecting", "dialing", "relaying", "parting", "aborting", "flushing", "lost", "closed"}
	events := [pairEvents]string{"clientKnown", "backendConnected", "legReset", "legFailed", "delivered", "gone"}
	compareStates(t, "event", pairState.after, states[:], events[:])
	ofPump := [pumpStates]string{"empty", "queued", "holding", "over"}
	steps := [verdicts]string{"more", "drained", "awaitSource", "awaitDestination", "departed", "finished", "sourceFailed",
		"destinationFailed", "abandoned"}
	compareStates(t, "verdict", pumpState.after, ofPump[:], steps[:])
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
				if _, twice := next[[2]string{state, event}]; twice {
					t.Errorf("the documentation has %s, %s twice", state, event)
				}
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

// TestRoomCannotBeWatched: a pair that would never hear that its destination has room again is reset at once, by the proxy.
func TestRoomCannotBeWatched(t *testing.T) {
	for _, policy := range []Policy{Never, Always} {
		ended := make(chan connection.End, 1)
		o := Options{Policy: policy, Observe: func(c Connection) { ended <- c.End }}
		l, port := testLoop(t, o, fixed{})
		_, ends := join(t, l, port)
		go func() { _, _ = ends.backend.Write(make([]byte, 16<<20)) }() // until it is reset
		if end := <-ended; end.By != connection.Proxy || end.Reason != connection.Failed || !errors.Is(end.Err, unix.ENOMEM) {
			t.Errorf("%+v; want it failed by the proxy, with %v", end, unix.ENOMEM)
		}
		if _, err := io.Copy(io.Discard, ends.client); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
		if s := port.Stats(); s.Aborted != 1 {
			t.Errorf("%v; want 1 aborted", s)
		}
	}
}

// TestAbortedOnce: a pair of which a leg has failed counts as aborted once, whatever else comes.
func TestAbortedOnce(t *testing.T) {
	l, port := testLoop(t, Options{}, linux{})
	p, _ := join(t, l, port)
	l.Do(func() {
		p.fail(front, unix.ECONNRESET)
		p.unwatchable(unix.ENOMEM)
	})
	if s := port.Stats(); s.Aborted != 1 || s.Active != 0 {
		t.Errorf("%v; want 1 aborted, and none active", s)
	}
}

// TestStatsHoldNobodyUp: while the counters of a port are waited for, other ports are closed. What they have counted is in the
// sum once.
func TestStatsHoldNobodyUp(t *testing.T) {
	e := scriptedEngine(t, linux{})
	const ports = 8 // of which the one that is waited for is looked at in any order
	var all [ports]*Port
	for i := range all {
		port, addr := addTo(t, e, rig.Backend(t, rig.Echo))
		rig.Check(t, rig.Dial(t, "tcp", addr).Close())
		rig.Until(t, "its connection has ended", func() bool { s := port.Stats(); return s.Accepted == 1 && s.Active == 0 })
		all[i] = port
	}
	all[0].mu.Lock()
	sum := make(chan Stats)
	go func() { sum <- e.Stats() }()
	rig.Until(t, "Stats waits for a port", func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("splice.(*Port).Stats"))
	})
	for _, port := range all[1:] {
		rig.Check(t, port.Close())
	}
	rig.Until(t, "they have ended", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.ports) == 1
	})
	all[0].mu.Unlock()
	if s := <-sum; s.Accepted != ports {
		t.Errorf("%v; want %d accepted", s, ports)
	}
	if s := e.Stats(); s.Accepted != ports {
		t.Errorf("%v afterwards; want %d accepted", s, ports)
	}
}
