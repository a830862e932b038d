package udp

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// A loop that cannot watch the port's frontend (no memory, or no watches left, for epoll) sends it on to the first one,
// with what is to be done at its home.
func TestHomeThatCannotWatch(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{Report: told.add})
	client := dial(t, r.address)
	from := exchange(t, client, backend, []byte("before"))
	var taken eventloop.Handle
	other.Do(func() {
		var err error
		taken, err = other.Watch(p.frontend, 0, ignored{}) // epoll watches a descriptor once
		must(t, err)
	})
	done := make(chan *eventloop.Loop, 1)
	p.do(func() {
		if !p.Move(other) {
			t.Error("the port does not move")
		}
		p.atHome(func() { done <- p.home.Load().loop })
	})
	if on := <-done; on != p.first {
		t.Error("what is to be done at home was not done on the first loop")
	}
	if home := p.home.Load(); home == nil || home.loop != p.first {
		t.Error("the port is not on the first loop")
	}
	if told.count(unix.EEXIST) != 1 {
		t.Error("that a loop cannot watch the frontend was not reported")
	}
	if again := exchange(t, client, backend, []byte("after")); again != from {
		t.Errorf("the client moved from %v to %v", from, again)
	}
	other.Do(func() { other.Unwatch(taken, p.frontend) })
}

// After a standstill the port's home may have its turn before the loop that a flow is on: what waits there for the flow
// keeps it, and its place among the answered.
func TestAwayFlowOutlivesAStandstill(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{Timeout: time.Minute})
	clock := new(clock).set(r)
	client, silent := dial(t, r.address), dial(t, r.address)
	flow, gone := exchange(t, client, backend, []byte("before")), exchange(t, silent, backend, []byte("before"))
	moveFlows(t, p, other)
	for round := range 2 {
		let, held := make(chan struct{}), make(chan struct{})
		other.Post(func() { close(held); <-let })
		<-held
		reply(t, backend, []byte("during"), flow)
		clock.advance(2 * time.Minute)
		r.relay.(loopRelay).sweepNow()
		if s := r.Stats(); s.Flows != 1 || s.Expired != 1 {
			t.Errorf("round %d: %v; want 1 flow left and 1 expired", round, s)
		}
		close(let)
		expect(t, client, []byte("during"))
		if again := exchange(t, client, backend, []byte("after")); again != flow {
			t.Errorf("the client moved from %v to %v", flow, again)
		}
	}
	if again := exchange(t, silent, backend, []byte("after")); again == gone {
		t.Error("the flow for which nothing came is still there")
	}
	clock.advance(2 * time.Minute)
	r.relay.(loopRelay).sweepNow()
	if s := r.Stats(); s.Flows != 0 {
		t.Errorf("%v; want no flows", s)
	}
}

type ignored struct{}

func (ignored) Ready(uint32) {}
