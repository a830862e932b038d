package eventloop

import (
	"math/rand/v2"
	"slices"
	"testing"
)

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
