package udp

import (
	"container/heap"
	"sync/atomic"
	"time"
)

// grace is how long a flow is left alone, if there is a choice, when a full table needs room. Without it, and without
// the half of the table that busy unanswered flows may take, the only unanswered flow in a table of answered ones, the
// newest client's, would be the victim of the next new client, and under load nobody new would ever hear from the
// backend. A resolver that has to ask others takes this long.
const grace = time.Second

// table is the set of flows. It does not lock, look at the clock or touch a socket.
//
// Both queues are in order of idle time, kept lazily: a datagram only stores the time in its flow, and a flow's
// place is put right when it comes to the front. So a datagram costs the table nothing, and the flow at the front
// is nevertheless exactly the one that has been idle longest.
//
// K is what tells flows apart, F a pointer to a flow.
type table[K comparable, F member[K]] struct {
	flows    map[K]F
	oneSided idleQueue[K, F] // the client spoke, the backend has not answered yet
	twoSided idleQueue[K, F] // the backend has answered
}

// member is a flow as the table sees it: it embeds a tracking.
type member[K comparable] interface {
	comparable
	track() *tracking[K]
}

// tracking is what the table knows of a flow.
type tracking[K comparable] struct {
	key      K
	seen     atomic.Int64  // time of the last datagram in either direction, on the relay's clock
	stamp    time.Duration // what the queue is ordered by: seen, as it was when the queue last looked
	place    int32         // index in its queue
	answered bool
	queued   bool // in the table
}

func (t *tracking[K]) track() *tracking[K] { return t }

func (t *tracking[K]) touch(now time.Duration) { t.seen.Store(int64(now)) }

func newTable[K comparable, F member[K]]() table[K, F] { return table[K, F]{flows: make(map[K]F)} }

func (t *table[K, F]) len() int { return len(t.flows) }

// find returns the flow of key, nil if there is none.
func (t *table[K, F]) find(key K) F { return t.flows[key] }

// add enters a flow, last seen now, whose key the table does not hold.
func (t *table[K, F]) add(f F, now time.Duration) {
	tracked := f.track()
	tracked.touch(now)
	tracked.queued = true
	t.flows[tracked.key] = f
	t.oneSided.insert(f)
}

// remove takes a flow out, and reports whether it was in.
func (t *table[K, F]) remove(f F) bool {
	tracked := f.track()
	if !tracked.queued {
		return false
	}
	heap.Remove(t.queue(tracked), int(tracked.place))
	delete(t.flows, tracked.key)
	tracked.queued = false
	return true
}

// answer notes that the backend has answered. The flow may have left the table meanwhile.
func (t *table[K, F]) answer(f F) {
	tracked := f.track()
	if tracked.queued {
		heap.Remove(t.queue(tracked), int(tracked.place))
		t.twoSided.insert(f)
	}
	tracked.answered = true
}

// evict takes out the flow that is missed least, nil if there is none: one that has been idle for the grace, and of
// these one that never had an answer rather than one that had. If all are busy it is one of the kind that there are
// more of. Of its kind it is the one idle longest.
func (t *table[K, F]) evict(now time.Duration) F {
	var none F
	one, two := t.oneSided.front(), t.twoSided.front()
	victim := one
	if one == none || two != none && t.sparesUnanswered(now, one, two) {
		victim = two
	}
	if victim != none {
		t.remove(victim)
	}
	return victim
}

// sparesUnanswered tells whether the answered flow at its front goes before the unanswered one at its own. Among busy
// flows it does while the unanswered ones are fewer: they may take half of the table, and are not pushed out of it by
// one another before; but a flood that nobody answers takes no more than that from the busy answered ones.
func (t *table[K, F]) sparesUnanswered(now time.Duration, one, two F) bool {
	switch {
	case now-one.track().stamp >= grace:
		return false
	case now-two.track().stamp >= grace:
		return true
	default:
		return len(t.oneSided) < len(t.twoSided)
	}
}

// expire takes out the flows last seen at the time before or earlier.
func (t *table[K, F]) expire(before time.Duration) []F {
	var none F
	var gone []F
	for _, q := range []*idleQueue[K, F]{&t.oneSided, &t.twoSided} {
		for f := q.front(); f != none && f.track().stamp <= before; f = q.front() {
			t.remove(f)
			gone = append(gone, f)
		}
	}
	return gone
}

// due returns when to expire flows next, if there are any: when the one idle longest has been so for the timeout, but
// so that flows that expire shortly after one another share a sweep, of which there are at most eight per timeout.
func (t *table[K, F]) due(now, timeout time.Duration) (at time.Duration, some bool) {
	seen, some := t.oldest()
	return max(seen+timeout, now+timeout/8), some
}

// oldest returns when the flow that has been idle longest was last seen.
func (t *table[K, F]) oldest() (seen time.Duration, some bool) {
	var none F
	for _, q := range []*idleQueue[K, F]{&t.oneSided, &t.twoSided} {
		if f := q.front(); f != none && (!some || f.track().stamp < seen) {
			seen, some = f.track().stamp, true
		}
	}
	return seen, some
}

// drain takes out all flows.
func (t *table[K, F]) drain() []F {
	all := make([]F, 0, len(t.flows))
	for _, f := range t.flows {
		all = append(all, f)
	}
	for _, f := range all {
		t.remove(f)
	}
	return all
}

func (t *table[K, F]) queue(tracked *tracking[K]) *idleQueue[K, F] {
	if tracked.answered {
		return &t.twoSided
	}
	return &t.oneSided
}

// idleQueue is a heap of flows by stamp. A stamp is never later than the flow was seen (but for the moment between
// reading the clock and storing it), so once the stamp of the front is right no other flow has been idle longer.
type idleQueue[K comparable, F member[K]] []F

// front returns the flow that has been idle longest, with its stamp right, or nil.
func (q *idleQueue[K, F]) front() (none F) {
	for len(*q) > 0 {
		tracked := (*q)[0].track()
		seen := time.Duration(tracked.seen.Load())
		if seen <= tracked.stamp {
			return (*q)[0]
		}
		tracked.stamp = seen
		heap.Fix(q, 0)
	}
	return none
}

func (q *idleQueue[K, F]) insert(f F) {
	tracked := f.track()
	tracked.stamp = time.Duration(tracked.seen.Load())
	heap.Push(q, f)
}

// The methods of heap.Interface.

func (q idleQueue[K, F]) Len() int           { return len(q) }
func (q idleQueue[K, F]) Less(i, j int) bool { return q[i].track().stamp < q[j].track().stamp }

func (q idleQueue[K, F]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].track().place, q[j].track().place = int32(i), int32(j)
}

func (q *idleQueue[K, F]) Push(x any) {
	f := x.(F)
	f.track().place = int32(len(*q))
	*q = append(*q, f)
}

func (q *idleQueue[K, F]) Pop() any {
	var none F
	last := len(*q) - 1
	f := (*q)[last]
	(*q)[last] = none
	*q = (*q)[:last]
	return f
}
