package udp

import (
	"testing"
	"time"
	"unsafe"

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

// What is to be done at home while the port is between two loops is done once, however often it moves after that.
func TestPendingIsDoneOnce(t *testing.T) {
	r, p, _, other := onTwoLoops(t, addressOf(listen(t, "127.0.0.1")), Options{})
	start(t, r)
	times := 0 // at home
	p.do(func() {
		if !p.Move(other) {
			t.Error("the port does not move")
		}
		p.atHome(func() { times++ })
	})
	for _, to := range []*eventloop.Loop{other, p.first, other} {
		movePort(t, p, to)
	}
	p.do(func() {
		if times != 1 {
			t.Errorf("done %d times", times)
		}
	})
}

// Flows expire wherever they and their port have gone.
func TestMovedFlowsExpire(t *testing.T) {
	for _, c := range []struct {
		name       string
		flow, port bool
	}{{"flow", true, false}, {"port", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, p, _, other := onTwoLoops(t, addressOf(backend), Options{Timeout: 100 * time.Millisecond})
			client := dial(t, r.address)
			for moved := false; !moved; { // or it had expired before
				open(t, client, backend)
				if c.flow {
					moveFlows(t, p, other)
				}
				p.do(func() {
					moved = p.flows.Len() == 1
					if moved && c.port && !p.Move(other) {
						t.Error("the port does not move")
					}
				})
			}
			waitFor(t, "expiry", func() bool { return r.Stats().Flows == 0 })
			wantRefs(t, p, 0, other, p.first)
		})
	}
}

// A port whose frontend rests, or that is closed, stays where it is.
func TestPortThatDoesNotMove(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
	client := dial(t, r.address)
	exchange(t, client, backend, []byte("before"))
	refuses := func(why string) {
		t.Helper()
		p.first.Do(func() {
			if p.Move(other) {
				t.Errorf("the port moves although it %s", why)
			}
		})
	}
	p.do(func() { p.rest(time.Hour) })
	refuses("rests")
	p.do(func() {
		p.home.Load().loop.StopTimer(&p.resuming)
		p.watch()
	})
	exchange(t, client, backend, []byte("after"))
	must(t, p.Close())
	refuses("is closed")
}

// A loop that ends gives back what ports had there: its entry, and the buffers' memory.
func TestLaneEndsWithItsLoop(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
	exchange(t, dial(t, r.address), backend, []byte("before"))
	movePort(t, p, other)
	lane := p.home.Load()
	if !lane.arena.mapped {
		t.Fatal("the lane's memory is of Go's heap: what is to be tested does not happen")
	}
	memory := unsafe.Slice(unsafe.SliceData(lane.arena.memory), len(lane.arena.memory)) // of the same place
	mapped := func() bool { return unix.Msync(memory, unix.MS_ASYNC) != unix.ENOMEM }
	if !mapped() {
		t.Error("the lane's memory is not there while the loop is")
	}
	r.relay.(loopRelay).group.Shrink()
	waitFor(t, "end", func() bool { _, there := lanes.Load(other); return !there })
	waitFor(t, "end of the memory", func() bool { return !mapped() })
}

// onlyFlow gives the one flow of a port.
func onlyFlow(t *testing.T, p *Port) (only *flow) {
	t.Helper()
	p.do(func() {
		for f := range p.flows.All() {
			only = f
		}
	})
	if only == nil {
		t.Fatal("no flow")
	}
	return only
}

// holdLoop keeps a loop from taking turns until it is let go.
func holdLoop(loop *eventloop.Loop) (letGo func()) {
	let, held := make(chan struct{}), make(chan struct{})
	loop.Post(func() { close(held); <-let })
	<-held
	return func() { close(let) }
}

// evictOne has a port's home close its flow.
func evictOne(t *testing.T, p *Port) {
	t.Helper()
	p.do(func() {
		if !p.evict() {
			t.Error("no flow to close")
		}
	})
}

// wantRefs waits until the loops have forgotten all flows but so many: then nothing but these, and the port, keeps the
// frontend open.
func wantRefs(t *testing.T, p *Port, flows int32, loops ...*eventloop.Loop) {
	t.Helper()
	for range 2 { // what one posts to the other
		for _, loop := range loops {
			loop.Do(func() {})
		}
	}
	if got := p.refs.Load(); got != 1+flows {
		t.Errorf("the frontend is kept %d times, want %d", got, 1+flows)
	}
}

// A flow that was closed while it was on its way to another loop is given up there.
func TestFlowClosedOnItsWay(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{Report: told.add})
	client := dial(t, r.address)
	exchange(t, client, backend, []byte("before"))
	f := onlyFlow(t, p)
	letGo := holdLoop(other)
	p.do(func() {
		if !f.Move(other) {
			t.Error("the flow does not move")
		}
	})
	evictOne(t, p)
	wantRefs(t, p, 1, p.first) // the one that is on its way
	letGo()
	wantRefs(t, p, 0, other, p.first)
	exchange(t, client, backend, []byte("after"))
	if n := told.count(unix.EBADF); n != 0 {
		t.Errorf("%d calls with the closed descriptor were reported", n)
	}
}

// A flow that its port's home has closed does not move any more from the loop that it was on.
func TestClosedFlowDoesNotMove(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
	exchange(t, dial(t, r.address), backend, []byte("before"))
	f := onlyFlow(t, p)
	moveFlows(t, p, other)
	let, held := make(chan struct{}), make(chan struct{})
	other.Post(func() {
		close(held)
		<-let
		if f.Move(p.first) {
			t.Error("the closed flow moves")
		}
	})
	<-held
	evictOne(t, p)
	wantRefs(t, p, 1, p.first) // the other loop may still be sending what it has received
	close(let)
	wantRefs(t, p, 0, other, p.first)
	r.relay.(loopRelay).group.Shrink() // it keeps nothing of the flow
	waitFor(t, "end", func() bool { return !other.Post(func() {}) })
}

// What its loop is told of a flow that its port's home has closed meanwhile is not heard, and its descriptor is left alone:
// it may be another's. The home has read what there was.
func TestClosedFlowDoesNotReceive(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, kernel, other := onTwoLoops(t, addressOf(backend), Options{})
	client := dial(t, r.address)
	from := exchange(t, client, backend, []byte("before"))
	f := onlyFlow(t, p)
	moveFlows(t, p, other)
	let, held := make(chan struct{}), make(chan struct{})
	var calls int
	other.Post(func() {
		close(held)
		<-let
		kernel.script(func(s *scripted) { calls = s.received })
		f.Ready(unix.EPOLLIN)
		kernel.script(func(s *scripted) { calls = s.received - calls })
	})
	<-held
	reply(t, backend, []byte("received by the home"), from)
	evictOne(t, p)
	expect(t, client, []byte("received by the home"))
	close(let)
	wantRefs(t, p, 0, other, p.first)
	if calls != 0 {
		t.Errorf("%d receives from a closed socket", calls)
	}
}

// A flow that its new loop cannot watch is abandoned, and its client served by another.
func TestFlowThatCannotBeWatched(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{Report: told.add})
	client := dial(t, r.address)
	before := exchange(t, client, backend, []byte("before"))
	f := onlyFlow(t, p)
	other.Do(func() {
		_, err := other.Watch(int(f.fd), 0, ignored{}) // epoll watches a descriptor once
		must(t, err)
	})
	p.do(func() {
		if !f.Move(other) {
			t.Error("the flow does not move")
		}
	})
	waitFor(t, "flow abandoned", func() bool { return r.Stats().Abandoned == 1 })
	wantRefs(t, p, 0, other, p.first)
	if n := told.count(unix.EEXIST); n != 1 {
		t.Errorf("reported %d times, want once", n)
	}
	if after := exchange(t, client, backend, []byte("after")); after == before {
		t.Error("the client still has the flow that nobody watches")
	}
}

type ignored struct{}

func (ignored) Ready(uint32) {}
