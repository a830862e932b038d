package udp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/udp/flows"
)

// onTwoLoops makes a port, and gives it another loop besides its home.
func onTwoLoops(t *testing.T, backend netip.AddrPort, o Options) (r *rig, p *Port, kernel *scripted,
	other *eventloop.Loop) {
	t.Helper()
	r, p, kernel = newScripted(t, backend, o)
	other = r.relay.(loopRelay).group.Grow()
	if other == nil {
		t.Fatal("no other loop")
	}
	return r, p, kernel, other
}

// moveFlows moves a port's flows to a loop, and returns when they are there.
func moveFlows(t *testing.T, p *Port, to *eventloop.Loop) {
	t.Helper()
	waitFor(t, "arrival", func() (there bool) {
		p.do(func() {
			there = true
			for f := range p.flows.All() {
				at := f.at.Load()
				if at != nil && at.loop == to {
					continue
				}
				there = false
				if at != nil {
					at.loop.Post(func() {
						if f.at.Load() == at {
							f.Move(to)
						}
					})
				}
			}
		})
		return there
	})
}

// movePort moves a port to a loop, and returns when it is there.
func movePort(t *testing.T, p *Port, to *eventloop.Loop) {
	t.Helper()
	p.do(func() {
		if p.home.Load().loop != to && !p.Move(to) {
			t.Error("the port does not move")
		}
	})
	waitFor(t, "arrival", func() bool { home := p.home.Load(); return home != nil && home.loop == to })
}

// numbered has clients send numbered datagrams and the backend answer them, for that many rounds, and fails if one is
// lost, or overtakes another of its flow, either way.
func numbered(t *testing.T, clients []*net.UDPConn, backend *net.UDPConn, rounds int, between func(round int)) {
	t.Helper()
	const burst = 8
	next := map[netip.AddrPort]uint32{}
	for round := range rounds {
		for i := range burst {
			for _, client := range clients {
				send(t, client, binary.BigEndian.AppendUint32(nil, uint32(round*burst+i)))
			}
		}
		between(round)
		for range burst * len(clients) {
			datagram, from := receive(t, backend)
			if got := binary.BigEndian.Uint32(datagram); got != next[from] {
				t.Fatalf("backend received number %d from %v, want %d", got, from, next[from])
			}
			next[from]++
			reply(t, backend, datagram, from)
		}
		for _, client := range clients {
			for i := range burst {
				expect(t, client, binary.BigEndian.AppendUint32(nil, uint32(round*burst+i)))
			}
		}
	}
	if len(next) != len(clients) {
		t.Errorf("%d clients had %d flows", len(clients), len(next))
	}
}

func dialAll(t *testing.T, n int, to netip.AddrPort) []*net.UDPConn {
	t.Helper()
	clients := make([]*net.UDPConn, n)
	for i := range clients {
		clients[i] = dial(t, to)
	}
	return clients
}

// Requests go by the port's home and replies by another loop: each receives into buffers of its own.
func TestRepliesByAnotherLoop(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, kernel, other := onTwoLoops(t, addressOf(backend), Options{})
	clients := dialAll(t, 4, r.address)
	for _, client := range clients {
		exchange(t, client, backend, []byte("hello"))
	}
	moveFlows(t, p, other)
	var byHome, byOther [2]int // receives of requests and replies
	kernel.script(func(s *scripted) {
		home, away := p.home.Load(), laneOf(other)
		s.alter = func(fd int, messages []unix.Mmsghdr) {
			way := toBackend
			if fd != p.frontend {
				way = toClients
			}
			switch unsafe.SliceData(messages) {
			case &home.in.messages[0]:
				byHome[way]++
			case &away.in.messages[0]:
				byOther[way]++
			}
		}
	})
	numbered(t, clients, backend, 20, func(int) {})
	kernel.script(func(*scripted) {
		if byHome[toBackend] == 0 || byHome[toClients] != 0 || byOther[toBackend] != 0 || byOther[toClients] == 0 {
			t.Errorf("the home received %d times from clients and %d from the backend, the other loop %d and %d",
				byHome[toBackend], byHome[toClients], byOther[toBackend], byOther[toClients])
		}
	})
	if s := r.Stats(); s.Dropped != 0 || s.KernelDropped != 0 {
		t.Errorf("%v; want nothing dropped", s)
	}
}

// A port and its flows move from loop to loop in the middle of traffic.
func TestMovesUnderTraffic(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
	clients := dialAll(t, 4, r.address)
	numbered(t, clients, backend, 100, func(round int) {
		to := []*eventloop.Loop{p.first, other}[round/2%2]
		if round%2 == 0 {
			moveFlows(t, p, to)
		} else {
			movePort(t, p, to)
		}
	})
	if s := r.Stats(); s.FlowsTotal != 4 || s.Dropped != 0 || s.KernelDropped != 0 {
		t.Errorf("%v; want 4 flows in all, and nothing dropped", s)
	}
}

// A loop that ends gives a port and its flows to another.
func TestLoopEndsUnderPort(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
	clients := dialAll(t, 4, r.address)
	numbered(t, clients, backend, 3, func(round int) {
		switch round {
		case 0:
			moveFlows(t, p, other)
			movePort(t, p, other)
		case 1:
			r.relay.(loopRelay).group.Shrink()
			waitFor(t, "end", func() bool { return !other.Post(func() {}) })
		}
	})
	if home := p.home.Load(); home.loop != p.first {
		t.Error("the port is not on the loop that is left")
	}
}

// The socket of a flow on another loop is closed at once when its place is needed, by whatever it is that runs out.
func TestAwayFlowsMakeRoom(t *testing.T) {
	const room, more = 4, 50
	for _, c := range []struct {
		name     string
		maxFlows int
	}{{"table", room}, {"descriptors", 1000}} {
		t.Run(c.name, func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, p, _, other := onTwoLoops(t, addressOf(backend), Options{MaxFlows: c.maxFlows, Report: told.add})
			clients := dialAll(t, room+more, r.address)
			if c.name == "descriptors" {
				limitDescriptors(t, room)
			}
			for i, client := range clients {
				exchange(t, client, backend, fmt.Appendf(nil, "client %d", i))
				moveFlows(t, p, other)
			}
			if s := r.Stats(); s.Flows > room || s.Evicted < more || s.Dropped != 0 {
				t.Errorf("%v; want %d flows at most, and nothing dropped", s, room)
			}
		})
	}
}

// That the backend has answered on another loop is known at home: such a flow is kept when room is needed.
func TestAnswerOnAnotherLoopCounts(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{MaxFlows: 2})
	clock := new(clock).set(r)
	answered, ignored := dial(t, r.address), dial(t, r.address)
	kept := open(t, answered, backend)
	moveFlows(t, p, other)
	reply(t, backend, []byte("answer"), kept)
	expect(t, answered, []byte("answer"))
	clock.advance(time.Second)
	gone := open(t, ignored, backend)
	clock.advance(2 * flows.Grace)
	exchange(t, dial(t, r.address), backend, []byte("new"))
	if from := exchange(t, answered, backend, []byte("still there")); from != kept {
		t.Errorf("the answered flow moved from %v to %v", kept, from)
	}
	if from := exchange(t, ignored, backend, []byte("back")); from == gone {
		t.Error("the flow that nobody answered was kept")
	}
}

// A socket that fails on another loop ends its flow, and does not spin meanwhile.
func TestAwayFlowIsAbandoned(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, kernel, other := onTwoLoops(t, addressOf(backend), Options{Report: told.add})
	client := dial(t, r.address)
	flow := exchange(t, client, backend, []byte("before"))
	moveFlows(t, p, other)
	kernel.script(func(s *scripted) {
		s.failReceive = func(fd int) unix.Errno {
			if fd == p.frontend {
				return 0
			}
			return unix.ENOMEM
		}
	})
	letGo := p.hold()
	reply(t, backend, []byte("never received"), flow)
	waitFor(t, "report", func() bool { return told.count(unix.ENOMEM) > 0 })
	other.Do(func() {}) // its turn is over
	if s := r.Stats(); s.Flows != 1 || s.Abandoned != 0 {
		t.Errorf("%v; want that the table waits for the port's home", s)
	}
	letGo()
	waitFor(t, "flow abandoned", func() bool { return r.Stats().Abandoned == 1 })
	p.do(func() {}) // it is closed, and what waits there cannot be read either
	kernel.script(func(s *scripted) { s.failReceive = nil })
	exchange(t, client, backend, []byte("after"))
	if n := told.count(unix.ENOMEM); n != 1 {
		t.Errorf("reported %d times, want once", n)
	}
}

// Two ports on one loop, whose datagrams come in the same turns.
func TestTwoPortsOnOneLoop(t *testing.T) {
	group, err := eventloop.New(eventloop.Options{})
	must(t, err)
	t.Cleanup(group.Close)
	const clients, each = 8, 10
	var conns [2][]*net.UDPConn
	var backends [2]*net.UDPConn
	var ports [2]*Port
	for i := range ports {
		backends[i] = listen(t, "127.0.0.1")
		frontend := listen(t, "127.0.0.1")
		conns[i] = dialAll(t, clients, addressOf(frontend))
		ports[i], err = New(group, takeFD(t, frontend), addressOf(backends[i]), Options{})
		must(t, err)
		t.Cleanup(func() { must(t, ports[i].Close()) })
	}
	letGo := ports[0].hold()
	for n := range each {
		for client := range clients {
			for i := range ports {
				send(t, conns[i][client], fmt.Appendf(nil, "port %d, datagram %d", i, n))
			}
		}
	}
	letGo()
	seen := [2]map[netip.AddrPort]int{{}, {}}
	type answer struct {
		datagram []byte
		to       netip.AddrPort
	}
	var answers [2][]answer
	for i := range ports {
		for range clients * each {
			datagram, from := receive(t, backends[i])
			if want := fmt.Sprintf("port %d, datagram %d", i, seen[i][from]); string(datagram) != want {
				t.Fatalf("received %q, want %q", datagram, want)
			}
			seen[i][from]++
			answers[i] = append(answers[i], answer{datagram, from})
		}
	}
	letGo = ports[0].hold()
	for n := range answers[0] {
		for i := range ports {
			reply(t, backends[i], answers[i][n].datagram, answers[i][n].to)
		}
	}
	letGo()
	for n := range each {
		for client := range clients {
			for i := range ports {
				expect(t, conns[i][client], fmt.Appendf(nil, "port %d, datagram %d", i, n))
			}
		}
	}
}

// A loop that is busy with one port's datagrams has a second one take replies.
func TestBusyPortGrows(t *testing.T) {
	group, err := eventloop.New(eventloop.Options{Max: 2})
	must(t, err)
	t.Cleanup(group.Close)
	frontend := listen(t, "127.0.0.1")
	address := addressOf(frontend)
	kernel := &scripted{failSend: func(int, *unix.Mmsghdr) unix.Errno {
		// So that it does not take much to keep the loop busy.
		for begun := time.Now(); time.Since(begun) < 50*time.Microsecond; {
		}
		return 0
	}}
	p, err := newPort(group, takeFD(t, frontend), echo(t), Options{}, kernel, (*eventloop.Loop).Now)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	var stop atomic.Bool
	const clients = 16
	ended := make(chan struct{}, clients)
	for _, client := range dialAll(t, clients, address) {
		go func() {
			defer func() { ended <- struct{}{} }()
			buffer := make([]byte, 300)
			for !stop.Load() {
				for range 8 {
					if _, err := client.Write(buffer[:200]); err != nil {
						t.Error(err)
						return
					}
				}
				if err := client.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
					t.Error(err)
					return
				}
				for range 8 {
					if _, err := client.Read(buffer); err != nil {
						break // the echo has little room
					}
				}
			}
		}()
	}
	waitFor(t, "flow on a loop other than its port's home", func() (away bool) {
		p.do(func() {
			for f := range p.flows.All() {
				at := f.at.Load()
				away = away || at != nil && at != p.home.Load()
			}
		})
		return away
	})
	stop.Store(true)
	for range clients {
		<-ended
	}
}

// Ports come, are read and changed while their loop takes no turn. Close waits for one, as nothing is left behind when it returns.
func TestPortsComeWithoutATurn(t *testing.T) {
	const many = 100
	group, err := eventloop.New(eventloop.Options{})
	must(t, err)
	t.Cleanup(group.Close)
	stand := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(stand) })
	defer goOn()
	group.First().Post(func() { <-stand })
	backend := echo(t)
	var ports [many]*Port
	var addresses [many]netip.AddrPort
	come := make(chan error, 1)
	var frontends [many]int
	for i := range frontends {
		frontend := listen(t, "127.0.0.1")
		addresses[i], frontends[i] = addressOf(frontend), takeFD(t, frontend)
	}
	go func() {
		come <- func() error {
			for i, frontend := range frontends {
				p, err := New(group, frontend, backend, Options{})
				if err != nil {
					return err
				}
				if ports[i] = p; p.Stats() != (Stats{}) || len(p.Clients(1)) > 0 {
					return fmt.Errorf("%v of a new port", p.Stats())
				}
				if err := p.SetOptions(Options{MaxFlows: 1}); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	waitFor(t, "ports", func() bool { return len(come) > 0 })
	must(t, <-come)
	goOn()
	for i, p := range ports {
		client := dial(t, addresses[i])
		send(t, client, []byte("hello"))
		expect(t, client, []byte("hello"))
		must(t, p.Close())
		listenAt(t, addresses[i])
	}
}
