package eventloop

import (
	"math/rand/v2"
	"testing"
	"time"
)

// pass lets time pass for the group's clock.
func (g *Group) pass(d time.Duration) { g.begun = g.begun.Add(-d) }

// A deadline has passed while what it waits for is in a queue already, as after a standstill of the process. The queue is
// looked at first, wherever in a turn the clock is read.
func TestQueuesComeBeforeTheClock(t *testing.T) {
	for _, test := range []struct {
		name     string
		answered bool
		rings    int
	}{{"answered", true, 0}, {"not answered", false, 1}} {
		t.Run(test.name, func(t *testing.T) {
			l := idleLoop(t)
			var timer Timer
			rings := 0
			answer := watch(t, l, func() { l.StopTimer(&timer) })
			l.SetTimer(&timer, ringFunc(func() { rings++ }), time.Second)
			l.Post(func() { // in a turn that has looked for events already
				l.group.pass(time.Minute)
				l.fresh = false
				if test.answered {
					answer()
				}
			})
			for range 3 {
				l.turn()
			}
			if rings != test.rings || timer.Set() {
				t.Errorf("rang %d times, want %d; still set: %v", rings, test.rings, timer.Set())
			}
		})
	}
}

// While handlers leave something behind that they will be told of again, deadlines wait; but not for ever.
func TestDeadlinesWaitForWhatIsLeftBehind(t *testing.T) {
	l := idleLoop(t)
	fd, ready := event(t)
	unread := 50
	if _, err := l.Watch(fd, 1, readyFunc(func(uint32) { // level-triggered: EPOLLIN
		if unread--; unread > 0 {
			l.More()
		}
	})); err != nil {
		t.Fatal(err)
	}
	ready()
	var timer Timer
	rangAt := -1
	l.SetTimer(&timer, ringFunc(func() { rangAt = unread }), 0)
	for timer.Set() {
		l.turn()
	}
	if rangAt != 0 {
		t.Errorf("rang with %d left to be read", rangAt)
	}
	unread = 1 << 30
	l.SetTimer(&timer, ringFunc(func() {}), l.Now())
	for turns := 0; timer.Set(); turns++ {
		if l.turn(); turns == 10 {
			l.group.pass(overrun)
		}
		if turns > 20 {
			t.Fatalf("a deadline waits for longer than %v", overrun)
		}
	}
}

// Timers ring in the order of their times, once, and not when they were stopped; compared with a plain list.
func TestTimersAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const timers = 40
	var heap deadlines
	var set [timers]Timer
	var want [timers]time.Duration // zero: not set
	for range 20_000 {
		i := r.IntN(timers)
		at := time.Duration(1 + r.IntN(1000))
		switch {
		case r.IntN(3) == 0 && set[i].Set():
			heap.remove(int(set[i].place - 1))
			want[i] = 0
		case set[i].Set():
			heap.change(int(set[i].place-1), at)
			want[i] = at
		default:
			heap.add(at, &set[i], nil)
			want[i] = at
		}
		least, n := time.Duration(0), 0
		for i, at := range want {
			if set[i].Set() != (at != 0) {
				t.Fatalf("timer %d is set: %v, to %v", i, set[i].Set(), at)
			}
			if at != 0 {
				n++
				if least == 0 || at < least {
					least = at
				}
			}
		}
		if len(heap) != n || n > 0 && heap[0].at != least {
			t.Fatalf("%d timers are set, want %d; the first of them at %v", len(heap), n, least)
		}
	}
}

// What passes while the loop looks for events is acted on after the next look, not after this one.
func TestOnlyWhatHadPassedRings(t *testing.T) {
	l := idleLoop(t)
	var first, second Timer
	var rang []string
	l.SetTimer(&first, ringFunc(func() { rang = append(rang, "first") }), 0)
	l.SetTimer(&second, ringFunc(func() { rang = append(rang, "second") }), time.Hour)
	l.turn() // the first is seen to have passed
	l.Post(func() { l.group.pass(2 * time.Hour) })
	if l.turn(); len(rang) != 1 || rang[0] != "first" {
		t.Fatalf("rang %q, want the first", rang)
	}
	for second.Set() {
		l.turn()
	}
}

// A deadline that is off again is forgotten: the loop does not go on to look without waiting.
func TestDeadlineThatIsOffAgain(t *testing.T) {
	l := idleLoop(t)
	var timer Timer
	l.SetTimer(&timer, ringFunc(func() { t.Error("it rang") }), 0)
	l.turn()
	if l.passed == 0 {
		t.Fatal("the deadline was not seen to have passed")
	}
	l.Post(func() { l.StopTimer(&timer) })
	if l.turn(); l.passed != 0 {
		t.Error("the deadline is waited for")
	}
}

// As many events as one look may find have left some behind, for all that is known.
func TestDeadlinesWaitForMoreEvents(t *testing.T) {
	l := idleLoop(t)
	for range maxEvents {
		fd, ready := event(t)
		if _, err := l.Watch(fd, 1, fixed{}); err != nil { // level-triggered: EPOLLIN
			t.Fatal(err)
		}
		ready()
	}
	var timer Timer
	l.SetTimer(&timer, ringFunc(func() {}), 0)
	l.turn()
	l.group.pass(-time.Hour) // however long the next turns take
	for range 3 {
		if l.turn(); !timer.Set() {
			t.Fatal("the deadline did not wait")
		}
	}
	l.group.pass(time.Hour + overrun)
	if l.turn(); timer.Set() {
		t.Errorf("the deadline waits for longer than %v", overrun)
	}
}

// What was posted runs, if not before the loop's end then at it.
func TestTasksRunAtTheEnd(t *testing.T) {
	l := newGroup(t, Options{}).First()
	var order []string
	l.Do(func() {
		l.AtEnd(func() { order = append(order, "end") })
		l.ended = true
		l.Post(func() { order = append(order, "task") })
	})
	<-l.done
	if len(order) != 2 || order[0] != "task" {
		t.Errorf("order %q, want the task and the end", order)
	}
}
