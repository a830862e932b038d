package udp

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	testrig "github.com/portsplice/portsplice/internal/rig"
)

// numberedAnswer is what the backend answers in these tests.
func numberedAnswer(i int) []byte { return fmt.Appendf(nil, "answer %d", i) }

func answerAll(t *testing.T, backend *net.UDPConn, to netip.AddrPort, n int) {
	t.Helper()
	for i := range n {
		reply(t, backend, numberedAnswer(i), to)
	}
}

func expectAnswers(t *testing.T, client *net.UDPConn, n int) {
	t.Helper()
	for i := range n {
		expect(t, client, numberedAnswer(i))
	}
}

// What waits in the socket of a flow reaches its client when the flow is closed, whatever closes it and on whichever
// loop it is.
func TestAnswersOutliveTheirFlow(t *testing.T) {
	const answers = 3
	for _, c := range []struct {
		name  string
		close func(t *testing.T, r *rig, p *Port, clock *clock)
	}{
		{"evicted", func(t *testing.T, _ *rig, p *Port, _ *clock) {
			if !p.evict() {
				t.Error("no flow to close")
			}
		}},
		{"expired", func(_ *testing.T, _ *rig, p *Port, clock *clock) {
			clock.advance(time.Hour)
			p.sweep()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a audience
			a.follows.Store(true)
			backend := listen(t, "127.0.0.1")
			r, p, _ := newScripted(t, addressOf(backend), a.options(Options{}))
			clock := new(clock).set(r)
			client := dial(t, r.address)
			flow := exchange(t, client, backend, []byte("before"))
			p.do(func() {
				answerAll(t, backend, flow, answers)
				c.close(t, r, p, clock)
			})
			expectAnswers(t, client, answers)
			if got, want := a.wait(t, 2)[1].FromBackend, len("before")+answers*len(numberedAnswer(0)); got != uint64(want) {
				t.Errorf("%d bytes are told of, want %d", got, want)
			}
			if s := r.Stats(); s.Flows != 0 || s.Evicted+s.Expired != 1 || s.DatagramsOut != 1+answers || s.Dropped != 0 {
				t.Errorf("%v; want the flow gone, and %d answers sent", s, 1+answers)
			}
		})
	}
	t.Run("evicted on its way", func(t *testing.T) {
		backend := listen(t, "127.0.0.1")
		r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
		client := dial(t, r.address)
		flow := exchange(t, client, backend, []byte("before"))
		f, letGo := onlyFlow(t, p), holdLoop(other)
		p.do(func() { f.Move(other) })
		answerAll(t, backend, flow, answers)
		evictOne(t, p)
		letGo()
		expectAnswers(t, client, answers)
	})
	t.Run("closed after its loop", func(t *testing.T) {
		backend := listen(t, "127.0.0.1")
		r, p, _ := newScripted(t, addressOf(backend), Options{})
		client := dial(t, r.address)
		flow := exchange(t, client, backend, []byte("before"))
		r.relay.(loopRelay).group.Close()
		answerAll(t, backend, flow, answers)
		must(t, p.Close())
		expectAnswers(t, client, answers)
	})
}

// A new client's datagram that makes a flow go is not lost by what is read of that flow meanwhile, nor is the order of
// its answers: the first is in the outbox already.
func TestAnswersOfAFlowThatMakesRoom(t *testing.T) {
	const answers, others = 5, 10
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{MaxFlows: 1})
	client := dial(t, r.address)
	flow := exchange(t, client, backend, []byte("before"))
	letGo := p.hold()
	answerAll(t, backend, flow, answers)
	for i, other := range dialAll(t, others, r.address) {
		send(t, other, fmt.Appendf(nil, "client %d", i))
	}
	letGo()
	expectAnswers(t, client, answers)
	for i := range others {
		expect(t, backend, fmt.Appendf(nil, "client %d", i))
	}
	if s := r.Stats(); s.Dropped != 0 {
		t.Errorf("%v; want nothing dropped", s)
	}
}

// Answers that were put into the outbox before their flow closes go before those that waited.
func TestAnswersKeepTheirOrder(t *testing.T) {
	const answers = 3
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{})
	client := dial(t, r.address)
	flow := exchange(t, client, backend, []byte("before"))
	f := onlyFlow(t, p)
	p.do(func() {
		answerAll(t, backend, flow, answers)
		f.depth = depth{} // so that it takes one
		f.Ready(unix.EPOLLIN)
		p.evict()
	})
	expectAnswers(t, client, answers)
}

// More than a batch is too much to wait for: it is counted, and so is what the socket had no room for.
func TestAnswersBeyondABatchAreCounted(t *testing.T) {
	const segment = 10
	for _, c := range []struct {
		name            string
		messages, block int
	}{
		{"datagrams", 3*batch + 1, 1},
		{"blocks", 2*batch + 1, 5},
		{"a full socket", 40_000, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, p, _ := newScripted(t, addressOf(backend), Options{Report: told.add})
			client := dial(t, r.address)
			flow := exchange(t, client, backend, []byte("before"))
			f := onlyFlow(t, p)
			datagram := func(i int) []byte { return fmt.Appendf(nil, "%0*d", segment, i) }
			p.do(func() {
				f.widen()
				for i := range c.messages {
					var block []byte
					for j := range c.block {
						block = append(block, datagram(i*c.block+j)...)
					}
					if c.block > 1 {
						sendBlock(t, backend, block, segment, flow)
					} else {
						reply(t, backend, block, flow)
					}
				}
				p.evict()
			})
			want := uint64(batch * c.block)
			for i := range int(want) {
				expect(t, client, datagram(i))
			}
			s, all := r.Stats(), uint64(c.messages*c.block)
			if s.DatagramsOut != 1+want || s.Dropped+s.KernelDropped != all-want || s.Dropped == 0 ||
				told.count(errUnread) != 1 {
				t.Errorf("%v, %d reports; want %d sent, %d dropped, and one report", s, told.count(errUnread), 1+want, all-want)
			}
			if full := c.messages > 10_000; full != (s.KernelDropped > 0) {
				t.Errorf("%v; dropped by the kernel, want %t", s, full)
			}
		})
	}
}

// No lock is held while somebody is told of what is lost when a flow closes, and that it has, wherever the flow is: they may ask
// for the counts, and change the settings. No other loop reads from its socket by then.
func TestNoLockIsHeldWhileTelling(t *testing.T) {
	const answers = 2 * batch
	for _, place := range []string{"at home", "on another loop", "on its way"} {
		t.Run(place, func(t *testing.T) {
			var p *Port
			var f *flow // that closes
			ask := func() {
				if f == nil {
					return
				}
				for _, mu := range []*sync.Mutex{&f.mu, &p.mu, &p.setting} { // which nobody else takes meanwhile
					if !mu.TryLock() {
						t.Error("told with a lock held")
						return
					}
					mu.Unlock()
				}
				if f.fd >= 0 {
					t.Error("told while another loop may read from the socket")
				}
				p.Stats()
				testrig.Check(t, errors.Join(p.SetBackend(p.Backend()), p.SetOptions(p.settings.Load().Options)))
			}
			var a audience
			a.follows.Store(true)
			var told reports
			var first netip.AddrPort
			o := a.options(Options{Report: func(op string, client, backend netip.AddrPort, err error) {
				ask()
				told.add(op, client, backend, err)
				if f != nil && backend != first {
					t.Errorf("told of %v, want the backend of the flow, %v", backend, first)
				}
			}})
			observe := o.Observe
			o.Observe = func(c connection.Connection) { ask(); observe(c) }
			backend := listen(t, "127.0.0.1")
			first = addressOf(backend)
			r, port, kernel, other := onTwoLoops(t, first, o)
			p = port
			flow := exchange(t, dial(t, r.address), backend, []byte("before"))
			f = onlyFlow(t, p)
			switch place {
			case "on another loop":
				moveFlows(t, p, other)
				defer holdLoop(other)()
			case "on its way":
				defer holdLoop(other)()
				p.do(func() { f.Move(other) })
			}
			kernel.script(func(s *scripted) {
				s.failSend = func(int, *unix.Mmsghdr) unix.Errno { return unix.EAGAIN }
			})
			p.do(func() {
				answerAll(t, backend, flow, answers)
				must(t, p.SetBackend(netip.MustParseAddrPort("[::1]:1")))
				if place == "at home" {
					f.depth = depth{} // so that it takes one, which is in the outbox then
					f.Ready(unix.EPOLLIN)
				}
				p.evict()
			})
			if s := r.Stats(); s.Dropped != answers || told.count(unix.EAGAIN) == 0 || told.count(errUnread) != 1 {
				t.Errorf("%v, %d reports of sends, %d of what was not read", s, told.count(unix.EAGAIN), told.count(errUnread))
			}
			a.wait(t, 2)
		})
	}
}

// A socket tells of an ICMP error first, although answers wait that came before. One that fails is not asked again.
func TestErrorsBeforeAnswersThatWait(t *testing.T) {
	const answers = 3
	for errno, want := range map[unix.Errno]int{unix.ECONNREFUSED: answers, unix.EHOSTUNREACH: answers, unix.ENOMEM: 0} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{})
			client := dial(t, r.address)
			flow := exchange(t, client, backend, []byte("before"))
			failed := 0
			kernel.script(func(s *scripted) {
				s.failReceive = func(int) unix.Errno {
					if failed++; failed > 1 {
						return 0
					}
					return errno
				}
			})
			p.do(func() {
				answerAll(t, backend, flow, answers)
				p.evict()
			})
			expectAnswers(t, client, want)
			s := r.Stats()
			if s.DatagramsOut != uint64(1+want) || s.Refused > 0 != (errno == unix.ECONNREFUSED) {
				t.Errorf("%v; want %d sent", s, 1+want)
			}
		})
	}
}

// TestAnsweredWhileItExpires: a flow whose loop takes an answer in the moment that home takes the flow for idle lives on.
func TestAnsweredWhileItExpires(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _, other := onTwoLoops(t, addressOf(backend), Options{})
	exchange(t, dial(t, r.address), backend, []byte("before"))
	f := onlyFlow(t, p)
	moveFlows(t, p, other)
	f.mu.Lock() // as its loop has it while it receives
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		p.do(func() {
			now := p.now(p.home.Load().loop)
			p.flows.Remove(f)
			p.flows.Add(f, now-2*DefaultTimeout)
			p.sweep()
		})
	}()
	testrig.Until(t, "home asks for what was not read", func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("udp.(*flow).unread"))
	})
	f.Touch(math.MaxInt64)
	f.mu.Unlock()
	<-swept
	if s := r.Stats(); s.Flows != 1 || s.Expired != 0 {
		t.Errorf("%v; want the flow, and none expired", s)
	}
}
