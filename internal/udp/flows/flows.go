// Package flows is the table of a UDP port's flows: who has spoken lately, whom to forget when room is needed, and who
// has been idle for too long.
//
//	none       a datagram from a client             Add       → one-sided
//	one-sided  a datagram from the backend          Answer    → two-sided
//	either     a datagram, whichever way            Touch
//	either     idle for the timeout                 Expire    → none
//	either     room is needed, and it is the victim Evict     → none
//	either     its socket has failed                Remove    → none
//
// The two relays share it: it does not lock, look at the clock or touch a socket. Touch alone may be called while
// another goroutine uses the table.
package flows

import (
	"container/heap"
	"iter"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Grace is how long a flow is left alone, if there is a choice, when a full table needs room. Without it, and without
// the half of the table that busy unanswered flows may take, the only unanswered flow in a table of answered ones, the
// newest client's, would be the victim of the next new client, and under load nobody new would ever hear from the
// backend. A resolver that has to ask others takes this long.
const Grace = time.Second

// Table is the set of flows.
//
// Both queues are in order of idle time, kept lazily: a datagram only stores the time in its flow, and a flow's
// place is put right when it comes to the front. So a datagram costs the table nothing, and the flow at the front
// is nevertheless exactly the one that has been idle longest.
//
// K is what tells flows apart, F a pointer to a flow.
type Table[K comparable, F Member[K]] struct {
	flows    map[K]F
	oneSided idleQueue[K, F] // the client spoke, the backend has not answered yet
	twoSided idleQueue[K, F] // the backend has answered
	peak     int             // flows there have been since the memory of more was given back
}

// A table that has held more than smallTable flows and has fewer than a shrinkPart of them left gives the memory of the
// others back: a map keeps that of all that it ever held, 18,000 flows' is 2.1 MB with the queues'. At most one
// flow is copied for seven that have gone, and the smallest tables are not worth that.
const (
	smallTable = 1024
	shrinkPart = 8
)

// Member is a flow as the table sees it: it embeds a Tracking.
type Member[K comparable] interface {
	comparable
	Track() *Tracking[K]
}

// Tracking is what the table knows of a flow.
type Tracking[K comparable] struct {
	Key      K
	seen     atomic.Int64  // time of the last datagram in either direction, on the relay's clock
	stamp    time.Duration // what the queue is ordered by: seen, as it was when the queue last looked
	place    int32         // index in its queue
	answered bool
	queued   bool // in the table
}

// Track gives the tracking itself, for Member.
func (t *Tracking[K]) Track() *Tracking[K] { return t }

// Touch notes a datagram, in either direction. Any goroutine may.
func (t *Tracking[K]) Touch(now time.Duration) { t.seen.Store(int64(now)) }

// SeenSince says whether there was a datagram after that time. Any goroutine may ask.
func (t *Tracking[K]) SeenSince(at time.Duration) bool { return t.seen.Load() > int64(at) }

// Listed says whether the flow is in the table.
func (t *Tracking[K]) Listed() bool { return t.queued }

// New makes an empty table.
func New[K comparable, F Member[K]]() Table[K, F] { return Table[K, F]{flows: make(map[K]F)} }

// Len is how many flows there are.
func (t *Table[K, F]) Len() int { return len(t.flows) }

// Find returns the flow of key, nil if there is none.
func (t *Table[K, F]) Find(key K) F { return t.flows[key] }

// Add enters a flow, last seen now, whose key the table does not hold. It may be one that Expire has taken out.
func (t *Table[K, F]) Add(f F, now time.Duration) {
	tracked := f.Track()
	tracked.Touch(now)
	tracked.queued = true
	t.flows[tracked.Key] = f
	t.peak = max(t.peak, len(t.flows))
	t.queue(tracked).insert(f)
}

// Remove takes a flow out, and reports whether it was in.
func (t *Table[K, F]) Remove(f F) bool {
	tracked := f.Track()
	if !tracked.queued {
		return false
	}
	heap.Remove(t.queue(tracked), int(tracked.place))
	delete(t.flows, tracked.Key)
	tracked.queued = false
	if t.peak > smallTable && len(t.flows) < t.peak/shrinkPart {
		t.shrink()
	}
	return true
}

// shrink gives back the memory of flows that have gone.
func (t *Table[K, F]) shrink() {
	t.peak = len(t.flows)
	all := make(map[K]F, len(t.flows))
	maps.Copy(all, t.flows)
	t.flows = all
	t.oneSided, t.twoSided = slices.Clone(t.oneSided), slices.Clone(t.twoSided)
}

// Answer notes that the backend has answered. The flow may have left the table meanwhile.
func (t *Table[K, F]) Answer(f F) {
	tracked := f.Track()
	if tracked.queued {
		heap.Remove(t.queue(tracked), int(tracked.place))
		t.twoSided.insert(f)
	}
	tracked.answered = true
}

// Evict takes out the flow that is missed least, nil if there is none: one that has been idle for the Grace, and of
// these one that never had an answer rather than one that had. If all are busy it is one of the kind that there are
// more of. Of its kind it is the one idle longest.
func (t *Table[K, F]) Evict(now time.Duration) F {
	var none F
	one, two := t.oneSided.front(), t.twoSided.front()
	victim := one
	if one == none || two != none && t.sparesUnanswered(now, one, two) {
		victim = two
	}
	if victim != none {
		t.Remove(victim)
	}
	return victim
}

// sparesUnanswered tells whether the answered flow at its front goes before the unanswered one at its own. Among busy
// flows it does while the unanswered ones are fewer: they may take half of the table, and are not pushed out of it by
// one another before; but a flood that nobody answers takes no more than that from the busy answered ones.
func (t *Table[K, F]) sparesUnanswered(now time.Duration, one, two F) bool {
	switch {
	case now-one.Track().stamp >= Grace:
		return false
	case now-two.Track().stamp >= Grace:
		return true
	default:
		return len(t.oneSided) < len(t.twoSided)
	}
}

// Expire takes out the flows last seen at the time before or earlier.
func (t *Table[K, F]) Expire(before time.Duration) []F {
	var none F
	var gone []F
	for _, q := range []*idleQueue[K, F]{&t.oneSided, &t.twoSided} {
		for f := q.front(); f != none && f.Track().stamp <= before; f = q.front() {
			t.Remove(f)
			gone = append(gone, f)
		}
	}
	return gone
}

// Due returns when to expire flows next, if there are any: when the one idle longest has been so for the timeout, but
// so that flows that expire shortly after one another share a sweep, of which there are at most eight per timeout.
func (t *Table[K, F]) Due(now, timeout time.Duration) (at time.Duration, some bool) {
	seen, some := t.oldest()
	return max(seen+timeout, now+timeout/8), some
}

// oldest returns when the flow that has been idle longest was last seen.
func (t *Table[K, F]) oldest() (seen time.Duration, some bool) {
	var none F
	for _, q := range []*idleQueue[K, F]{&t.oneSided, &t.twoSided} {
		if f := q.front(); f != none && (!some || f.Track().stamp < seen) {
			seen, some = f.Track().stamp, true
		}
	}
	return seen, some
}

// All gives the flows, in no order.
func (t *Table[K, F]) All() iter.Seq[F] { return maps.Values(t.flows) }

// Part gives up to most of the flows, from a place on. They change places as time goes by: who comes back for the next part
// may miss some, and see others twice.
func (t *Table[K, F]) Part(from, most int) iter.Seq[F] {
	return func(yield func(F) bool) {
		for i := from; i < min(from+most, t.Len()); i++ {
			if f := t.at(i); !yield(f) {
				return
			}
		}
	}
}

func (t *Table[K, F]) at(place int) F {
	if place < len(t.oneSided) {
		return t.oneSided[place]
	}
	return t.twoSided[place-len(t.oneSided)]
}

// Drain takes out all flows.
func (t *Table[K, F]) Drain() []F {
	all := slices.Collect(t.All())
	for _, f := range all {
		t.Remove(f)
	}
	return all
}

func (t *Table[K, F]) queue(tracked *Tracking[K]) *idleQueue[K, F] {
	if tracked.answered {
		return &t.twoSided
	}
	return &t.oneSided
}

// idleQueue is a heap of flows by stamp. A stamp is never later than the flow was seen (but for the moment between
// reading the clock and storing it), so once the stamp of the front is right no other flow has been idle longer.
type idleQueue[K comparable, F Member[K]] []F

// front returns the flow that has been idle longest, with its stamp right, or nil.
func (q *idleQueue[K, F]) front() (none F) {
	for len(*q) > 0 {
		tracked := (*q)[0].Track()
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
	tracked := f.Track()
	tracked.stamp = time.Duration(tracked.seen.Load())
	heap.Push(q, f)
}

// The methods of heap.Interface.

func (q idleQueue[K, F]) Len() int           { return len(q) }
func (q idleQueue[K, F]) Less(i, j int) bool { return q[i].Track().stamp < q[j].Track().stamp }

func (q idleQueue[K, F]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].Track().place, q[j].Track().place = int32(i), int32(j)
}

func (q *idleQueue[K, F]) Push(x any) {
	f := x.(F)
	f.Track().place = int32(len(*q))
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
