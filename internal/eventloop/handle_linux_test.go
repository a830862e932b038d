package eventloop

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// Two descriptors are ready, and whoever is served first closes the other, whose slot and number go to a new one. The
// event of the old one is still in the batch, and must not reach the new one's handler.
func TestEventOfAnEarlierRegistration(t *testing.T) {
	l := idleLoop(t)
	quiet, _ := event(t)
	var fds [2]int
	var handles [2]Handle
	served := 0
	for i := range fds {
		fd, ready := event(t)
		ready()
		var err error
		fds[i] = fd
		handles[i], err = l.Watch(fd, unix.EPOLLIN, readyFunc(func(uint32) {
			served++
			other := 1 - i
			l.Forget(handles[other])
			if err := unix.Dup3(quiet, fds[other], unix.O_CLOEXEC); err != nil {
				t.Error(err)
			}
			again, err := l.Watch(fds[other], unix.EPOLLIN, readyFunc(func(uint32) { t.Error("an event reached the wrong handler") }))
			if err != nil || again.index != handles[other].index {
				t.Errorf("%v; the new handle is %v, want the slot of %v", err, again, handles[other])
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	l.turn()
	if served != 1 {
		t.Errorf("%d were served, want 1", served)
	}
}

// What Unlisten has ended is told nothing, though its event is in the batch already; and other handles go on.
func TestUnlisten(t *testing.T) {
	l := idleLoop(t)
	fd, ready := event(t)
	h, err := l.Listen(fd, unix.EPOLLIN, readyFunc(func(uint32) { t.Error("told after its end") }))
	if err != nil {
		t.Fatal(err)
	}
	ready()
	l.Post(func() { l.Unlisten(h, fd) }) // the loop's own handle comes first: it was ready first
	events := append([]unix.EpollEvent(nil), l.epoll.wait(0)...)
	if len(events) != 2 {
		t.Fatalf("%d events, want 2", len(events))
	}
	if handleOf(&events[0]) == h {
		events[0], events[1] = events[1], events[0]
	}
	l.dispatch(events)
	l.Unlisten(h, fd) // again
}

// The table is as large as the most that were ever registered at a time, and a handle that was given back is never good
// again; compared with a map.
func TestTableAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var table table
	good := make(map[Handle]*mover)
	var bad []Handle
	most := 0
	for range 50_000 {
		if r.IntN(2) == 0 && len(good) < 700 {
			m := new(mover)
			h := table.take(m)
			if good[h] != nil || !h.Registered() {
				t.Fatalf("handle %v is given twice", h)
			}
			good[h] = m
		} else {
			for h := range good {
				table.give(h)
				table.give(h)
				delete(good, h)
				bad = append(bad, h)
				break
			}
		}
		most = max(most, len(good))
		if int(table.end) > most || table.used != len(good) {
			t.Fatalf("%d slots, %d used, for %d handles, %d at most", table.end, table.used, len(good), most)
		}
	}
	for h, m := range good {
		if s := table.find(h); s == nil || s.handler != Handler(m) {
			t.Fatalf("handle %v leads to %v", h, s)
		}
	}
	for _, h := range bad {
		if table.find(h) != nil {
			t.Fatalf("handle %v is still good", h)
		}
	}
}

// When a burst of handles has gone the table gives the memory of their slots back, but for what is before one in use.
// No handle that was given back is ever good again, nor is one that is good forgotten.
func TestTableGivesMemoryBack(t *testing.T) {
	const most, stays = 20_000, 300
	var slots table
	var old []Handle
	kept := slots.take(fixed{})
	for round := range 3 {
		var all []Handle
		for slots.used <= most {
			all = append(all, slots.take(fixed{}))
		}
		for _, h := range old {
			if slots.find(h) != nil {
				t.Fatalf("round %d: handle %v of an earlier round is good", round, h)
			}
		}
		for _, h := range all {
			if h.index != stays {
				slots.give(h)
			}
			if slots.find(kept) == nil {
				t.Fatalf("round %d: a handle in use is forgotten", round)
			}
		}
		if blocks := stays/slotBlock + 1; len(slots.blocks) != blocks || cap(slots.free) > 2*blocks*slotBlock ||
			int(slots.end) != blocks*slotBlock {
			t.Errorf("round %d: %d blocks, room for %d free ones, end %d; want %d blocks", round, len(slots.blocks),
				cap(slots.free), slots.end, blocks)
		}
		for _, h := range all {
			if (slots.find(h) != nil) != (h.index == stays) {
				t.Fatalf("round %d: handle %v is good: %t", round, h, slots.find(h) != nil)
			}
			slots.give(h)
		}
		old = append(old, all...)
	}
	slots.give(kept)
	seen := map[uint32]bool{}
	for range most {
		h := slots.take(fixed{})
		if seen[h.index] || slots.find(h) == nil {
			t.Fatalf("handle %v is not of a slot of its own", h)
		}
		seen[h.index] = true
	}
}

// A table that is not large keeps its slots.
func TestSmallTableStays(t *testing.T) {
	var slots table
	var all []Handle
	for range smallTable {
		all = append(all, slots.take(fixed{}))
	}
	for _, h := range all {
		slots.give(h)
	}
	if len(slots.blocks) != smallTable/slotBlock {
		t.Errorf("%d blocks, want %d", len(slots.blocks), smallTable/slotBlock)
	}
}
