package sctp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// scene is a pair's.
type scene struct {
	*world
	client, backend *socket
}

// TestQuiet: whatever epoll says for ever, a pair that can do nothing about it does not spin.
func TestQuiet(t *testing.T) {
	blocked := func(s scene) {
		s.backend.room = 0
		s.client.message(10, 0)
	}
	for _, test := range []struct {
		name   string
		script func(s scene)
	}{
		{"nothing", func(scene) {}},
		{"the source has more, and the destination no room", func(s scene) {
			blocked(s)
			s.quiet()
			s.client.message(10, 0)
		}},
		{"the destination has room, but takes nothing", func(s scene) {
			blocked(s)
			s.backend.lies = true
		}},
		{"the same after a look", func(s scene) {
			blocked(s)
			s.backend.lies = true
			s.quiet()
			s.pass(time.Second)
		}},
		{"no memory", func(s scene) {
			blocked(s)
			s.backend.sent, s.backend.refuses = nil, unix.ENOBUFS
			s.backend.lies = true
		}},
		{"the source has hung up, and the destination has no room", func(s scene) {
			blocked(s)
			s.client.shutdown()
			s.client.hup = true
		}},
		{"the destination has hung up, and it was told", func(s scene) {
			s.client.notify(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_SHUTDOWN_COMP))
			s.quiet()
			s.client.hup = true
		}},
		{"both have hung up while messages wait", func(s scene) {
			blocked(s)
			s.quiet()
			s.client.hup, s.backend.hup = true, true
			s.client.in, s.backend.in = []arrival{{}}, []arrival{{}}
		}},
		{"an error that nobody can take", func(s scene) { s.client.errQueue = true }},
		{"the same, while a pump waits", func(s scene) {
			blocked(s)
			s.backend.errQueue = true
		}},
		{"an error that nobody reads", func(s scene) {
			blocked(s)
			s.quiet()
			s.client.errs = []unix.Errno{unix.ECONNRESET}
		}},
		{"hung up before anybody asked why", func(s scene) { s.client.hup = true }},
		{"a large message for which there is no memory", func(s scene) {
			s.port.memory.beyond.Store(true)
			s.port.memory.limit.Store(0)
			for range 200 {
				s.client.piece(slotSize)
			}
			s.client.message(10, 0)
		}},
		{"a pair that fails", func(s scene) {
			s.client.notify(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_COMM_LOST))
			s.client.hup = true
			s.backend.message(10, 0)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			p, client, backend := w.pair()
			test.script(scene{w, client, backend})
			w.quiet()
			for range 3 {
				w.pass(time.Second)
			}
			p.abort()
			w.expectNothingHeld()
		})
	}
}

// TestHungUpBehindALargeMessage: epoll does not tell of a leg that has hung up again and again; what is behind a large message
// is read all the same, and the pair ends.
func TestHungUpBehindALargeMessage(t *testing.T) {
	for _, also := range []int{0, 1, 3} {
		w := newWorld(t, Options{})
		p, client, backend := w.pair()
		backend.room = 0
		client.message(100<<10, 0)
		w.quiet()
		for range also {
			client.message(10, 0)
		}
		client.notify(sctp.SCTP_PEER_ADDR_CHANGE) // which means nothing to a pump
		client.shutdown()
		client.hup = true
		backend.shutdown()
		w.quiet()
		backend.room, backend.refuses = -1, unix.EPIPE
		w.quiet()
		w.pass(time.Second)
		if s := w.port.Stats(); p.state != ended || s.Undelivered != uint64(1+also) {
			t.Errorf("with %d messages behind it the pair is in state %d, %d not delivered; want it ended, and all counted", also, p.state, s.Undelivered)
		}
		if p.state != ended {
			p.abort()
		}
		w.expectNothingHeld()
	}
}

// TestHungUpBehindBatches: the loss of a leg that nobody has told of is found behind all that was received.
func TestHungUpBehindBatches(t *testing.T) {
	for _, messages := range []int{1, batchDepth, batchDepth + 1, 3*batchDepth + 1} {
		w := newWorld(t, Options{})
		p, client, backend := w.pair()
		for range messages {
			client.message(10, 0)
		}
		client.hup = true
		w.quiet()
		if p.state == relaying || len(backend.sent) != messages {
			t.Errorf("of %d messages %d were sent, and the pair is in state %d; want all, and that it fails", messages, len(backend.sent), p.state)
		}
		p.abort()
		w.expectNothingHeld()
	}
}

// TestDenied: a destination that has taken nothing, although epoll said that it would, is tried again.
func TestDenied(t *testing.T) {
	for _, refuses := range []unix.Errno{0, unix.ENOMEM, unix.ENOBUFS} {
		t.Run(fmt.Sprint(refuses), func(t *testing.T) {
			w := newWorld(t, Options{})
			p, client, backend := w.pair()
			backend.room, backend.lies, backend.refuses = 0, true, refuses
			client.message(10, 3)
			w.quiet()
			if p.in.state != denied {
				t.Fatalf("the pump is in state %d; want denied", p.in.state)
			}
			backend.room, backend.refuses = -1, 0
			w.quiet() // it does not look at once: it would spin
			w.expectSent(backend)
			w.pass(defaultPatience.check)
			w.expectSent(backend, "3:10")
			if p.in.state != reading || w.port.Stats().Aborted != 0 {
				t.Errorf("the pump is in state %d, aborted %d; want reading", p.in.state, w.port.Stats().Aborted)
			}
		})
	}
}

// TestTurns: a pump with more than a batch to be read takes its turns in the queue, one batch in each.
func TestTurns(t *testing.T) {
	w := newWorld(t, Options{})
	p, client, backend := w.pair()
	for range 5*batchDepth + 1 {
		client.message(10, 1)
	}
	before := client.receives
	for i := 1; w.turn(); i++ { // the first turn has the event's batch and one in the queue
		if got, want := len(backend.sent), min((i+1)*batchDepth, 5*batchDepth+1); got != want {
			t.Fatalf("%d messages after %d turns; want %d", got, i, want)
		}
	}
	if got := client.receives - before; got != 6 {
		t.Errorf("%d receives; want 6", got)
	}
	for range 5 * batchDepth {
		client.message(10, 1)
	}
	w.turn()
	p.abort() // in the queue
	w.expectNothingHeld()
}

// TestRandomSchedules: whatever comes in which order, messages arrive in order, each on its stream, and nothing spins.
func TestRandomSchedules(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, Options{})
		p, client, backend := w.pair()
		var want [2][]string
		ends := [2]*socket{client, backend}
		for range 200 {
			way := random.IntN(2)
			from, to := ends[way], ends[1-way]
			switch random.IntN(8) {
			case 0, 1, 2:
				n, stream := 1+random.IntN(3*slotSize), uint16(random.IntN(10))
				if random.IntN(20) == 0 {
					n = 1 + random.IntN(batchDepth*slotSize*6)
				}
				from.message(n, stream)
				want[way] = append(want[way], fmt.Sprintf("%d:%d", stream, n))
			case 3:
				to.room = random.IntN(40)
			case 4:
				to.room, to.lies = -1, false
			case 5:
				to.lies = random.IntN(2) == 0
			case 6:
				w.turn()
			case 7:
				w.pass(time.Duration(random.IntN(2000)) * time.Millisecond)
			}
			w.quiet()
		}
		for _, s := range ends {
			s.room, s.lies = -1, false
		}
		w.pass(time.Second)
		for way := range ends {
			w.expectSent(ends[1-way], want[way]...)
		}
		p.abort()
		w.expectNothingHeld()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
