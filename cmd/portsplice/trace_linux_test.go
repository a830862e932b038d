package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
)

// trace asks the lab's worker for events, and gives its first.
func (l *lab) trace(t *testing.T, selector string) (*worker.Stream, worker.Event) {
	t.Helper()
	name := l.rendezvous(t, os.Geteuid()).Name
	streams, _ := worker.Trace(selector, func(other string) bool { return other != name }) // whatever workers of other tests say
	if len(streams) != 1 {
		t.Fatalf("%d workers are called %s", len(streams), name)
	}
	watchdog := time.AfterFunc(timeout, func() { _ = streams[0].Close() })
	t.Cleanup(func() {
		watchdog.Stop()
		_ = streams[0].Close() // the test may have done it
	})
	first, err := streams[0].Next()
	must(t, err)
	if first.Event != "tracing" || first.Worker != l.worker(t) {
		t.Fatalf("the first event is %+v", first)
	}
	return streams[0], first
}

// next gives the next event, without its times.
func next(t *testing.T, s *worker.Stream) worker.Event {
	t.Helper()
	e, err := s.Next()
	must(t, err)
	if e.Time.IsZero() || e.ConnectSeconds < 0 || e.DurationSeconds < e.ConnectSeconds && e.Event == "ended" {
		t.Errorf("the times of %+v cannot be", e)
	}
	return e
}

// TestTrace: whoever asks is told of connections and failures as they happen, of the ports that they mean; also of a port
// that comes later.
func TestTrace(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	shim, other := l.publish(t, "tcp", backend)
	shims := []*process{shim}
	shim, frontend := l.publish(t, "tcp", backend)
	shims = append(shims, shim)
	refused := freePort(t, "tcp", ours())
	nobody := rig.Refusing(t)
	both, first := l.trace(t, "")
	if want := []string{other.String() + "/tcp", frontend.String() + "/tcp"}; !cmp.Equal(first.Ports, want, cmpopts.SortSlices(strings.Compare)) {
		t.Errorf("%v are traced, want %v", first.Ports, want)
	}
	one, first := l.trace(t, frontend.String())
	if want := []string{frontend.String() + "/tcp"}; !slices.Equal(first.Ports, want) {
		t.Errorf("%v are traced, want %v", first.Ports, want)
	}
	later, first := l.trace(t, fmt.Sprintf("%d/tcp", refused.Port()))
	if len(first.Ports) > 0 {
		t.Errorf("%v are traced, want none", first.Ports)
	}

	connect := func(to netip.AddrPort) (client string) {
		conn := dial(t, "tcp", to)
		exchange(t, conn, "hello")
		must(t, conn.Close())
		return conn.LocalAddr().String()
	}
	ordinary := func(frontend netip.AddrPort, client string) []worker.Event {
		of := func(e worker.Event) worker.Event {
			e.Port, e.Client, e.Backend = frontend.String()+"/tcp", client, backend.String()
			return e
		}
		return []worker.Event{
			of(worker.Event{Event: "accepted"}), of(worker.Event{Event: "connected"}),
			of(worker.Event{Event: "ended", ReceivedBytes: 5, SentBytes: 5, EndedBy: "client", Reason: "closed"}),
		}
	}
	compare := func(s *worker.Stream, want []worker.Event) {
		t.Helper()
		got := make([]worker.Event, len(want))
		for i := range got {
			got[i] = next(t, s)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(worker.Event{}, "Time", "ConnectSeconds", "DurationSeconds")); diff != "" {
			t.Error(diff)
		}
	}
	events := ordinary(other, connect(other))
	compare(both, events)
	events = ordinary(frontend, connect(frontend))
	compare(both, events)
	compare(one, events) // and nothing of the other

	shims = append(shims, l.run(run{args: arguments("tcp", refused, nobody)}).serve(t))
	rig.WantReset(t, refused)
	e := next(t, later)
	client := e.Client
	of := worker.Event{Port: refused.String() + "/tcp", Client: client, Backend: nobody.String()}
	accepted, failed, ended := of, of, of
	accepted.Event, failed.Event, ended.Event = "accepted", "failed", "ended"
	failed.Operation, failed.Error = "dial", "connect: connection refused"
	ended.EndedBy, ended.Reason, ended.Error = "backend", "dial failed", failed.Error
	if diff := cmp.Diff(accepted, e, cmpopts.IgnoreFields(worker.Event{}, "Time")); diff != "" {
		t.Error(diff)
	}
	compare(later, []worker.Event{failed, ended})

	// A worker ends after its last port: nobody who listens keeps it.
	for _, shim := range shims {
		shim.signalled(t, syscall.SIGINT)
	}
	if _, err := one.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the worker's end: %v, want %v", err, io.EOF)
	}
}

// TestTraceOfFlows: UDP flows that begin while somebody traces are told of.
func TestTraceOfFlows(t *testing.T) {
	l := newLab(t)
	backend := echo(t, "udp", ours())
	shim, frontend := l.publish(t, "udp", backend)
	exchange(t, dial(t, "udp", frontend), "hello") // before
	s, _ := l.trace(t, frontend.String()+"/udp")
	conn := dial(t, "udp", frontend)
	exchange(t, conn, "hello")
	if h := l.listed(t, frontend).Histograms; h != nil { // all of them would end by the timeout
		t.Errorf("of a UDP port there are histograms: %v", h)
	}
	for _, want := range []worker.Event{{Event: "accepted"}, {Event: "ended", EndedBy: "portsplice", Reason: "stopped"}} {
		e := next(t, s)
		if e.Event != want.Event || e.Client != conn.LocalAddr().String() || e.Port != frontend.String()+"/udp" ||
			e.Backend != backend.String() || e.EndedBy != want.EndedBy || e.Reason != want.Reason {
			t.Errorf("told of %+v, want %+v of the second client", e, want)
		}
		if e.Event == "accepted" {
			must(t, shim.Process.Signal(syscall.SIGINT))
		}
	}
}

// TestTraceRefused: a text that means no port is refused with the reason.
func TestTraceRefused(t *testing.T) {
	l := newLab(t)
	l.publish(t, "tcp", echo(t, "tcp", ours()))
	name := l.rendezvous(t, os.Geteuid()).Name
	streams, _ := worker.Trace("http", func(other string) bool { return other != name })
	if len(streams) != 1 {
		t.Fatalf("%d workers are called %s", len(streams), name)
	}
	_, err := streams[0].Next()
	if want := `port "http": "http" is not a port (1 to 65535)`; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	must(t, streams[0].Close())
}

// TestTraceThatIsNotRead: whoever does not read holds up nobody, and is told how much it has missed.
func TestTraceThatIsNotRead(t *testing.T) {
	const clients, each = 700, 3 // more events than wait for a reader, in the worker and the socket
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	l.run(run{args: arguments("tcp", frontend, rig.Refusing(t))}).serve(t)
	s, _ := l.trace(t, frontend.String())
	for range clients {
		rig.WantReset(t, frontend)
	}
	until(t, "all have ended", func() bool {
		return l.listed(t, frontend).Histograms["connection-duration"].Count == clients
	})
	told, dropped := 0, uint64(0)
	for uint64(told)+dropped < clients*each {
		if e := next(t, s); e.Event == "dropped" {
			dropped += e.Dropped
		} else {
			told++
		}
	}
	if got := uint64(told) + dropped; got != clients*each || dropped == 0 {
		t.Errorf("%d events are told and %d dropped, of %d", told, dropped, clients*each)
	}
	rig.WantReset(t, frontend) // and nothing is left of what was before
	if e := next(t, s); e.Event != "accepted" {
		t.Errorf("the next event is %+v", e)
	}
}
