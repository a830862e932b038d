package eventloop

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// What is short has every second slice beside streams, in its order, and all without them.
func TestShortPassesStreams(t *testing.T) {
	l := idleLoop(t)
	var order []string
	runner := func(name string, verdicts ...Verdict) Runner {
		return &runFunc{func() Verdict {
			order = append(order, name)
			v := verdicts[0]
			verdicts = verdicts[1:]
			return v
		}}
	}
	l.Enqueue(runner("stream", Again, Again, Next, Again, Done))
	l.Enqueue(runner("another", Done))
	gone := runner("gone")
	l.EnqueueShort(gone)
	for _, r := range []Runner{runner("a", Again, Next, Done), runner("b", Done), runner("c", Again, Again, Done)} {
		l.EnqueueShort(r)
	}
	l.Dequeue(gone)
	quiet := l.quiet
	for l.Queued() {
		l.turn()
	}
	if l.quiet != quiet {
		t.Errorf("the loop has waited for %v", l.quiet-quiet)
	}
	want := []string{"a", "stream", "a", "stream", "b", "stream", "c", "another", "c", "stream", "c", "stream", "a"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}

// The queue against a slice.
func TestQueueAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var q queue
	var model []Runner
	for range 50_000 {
		switch r.IntN(5) {
		case 0, 1:
			next := &runFunc{}
			q.push(next)
			model = append(model, next)
		case 2:
			if len(model) > 0 {
				i := r.IntN(len(model))
				q.remove(model[i])
				model = slices.Delete(model, i, i+1)
			}
		default:
			if first := q.first(); first != nil {
				if len(model) == 0 || first != model[0] {
					t.Fatal("the wrong one is first")
				}
				q.pop()
				model = model[1:]
			} else if len(model) > 0 {
				t.Fatalf("none is first of %d", len(model))
			}
		}
	}
}
