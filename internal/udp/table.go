package udp

import (
	"container/heap"
	"time"
)

// grace is how long a flow is left alone, if there is a choice, when a full table needs room. Without it the only
// unanswered flow in a table of answered ones, the newest client's, would be the victim of the next new client, and
// under load nobody new would ever hear from the backend. A resolver that has to ask others takes this long.
const grace = time.Second

// table is the set of flows. It does not lock, look at the clock or touch a socket.
//
// Both queues are in order of idle time, kept lazily: a datagram only stores the time in its flow, and a flow's
// place is put right when it comes to the front. So a datagram costs the table nothing, and the flow at the front
// is nevertheless exactly the one that has been idle longest.
type table struct {
	flows    map[flowKey]*flow
	oneSided idleQueue // the client spoke, the backend has not answered yet
	twoSided idleQueue // the backend has answered
}

// tracking is what the table keeps in a flow.
type tracking struct {
	answered bool
	queued   bool          // in the table
	place    int           // index in its queue
	stamp    time.Duration // what the queue is ordered by: seen, as it was when the queue last looked
}

func newTable() table { return table{flows: make(map[flowKey]*flow)} }

func (t *table) len() int { return len(t.flows) }

func (t *table) find(key flowKey) *flow { return t.flows[key] }

// add enters a flow, last seen now, whose key the table does not hold.
func (t *table) add(f *flow, now time.Duration) {
	f.touch(now)
	f.queued = true
	t.flows[f.key] = f
	t.oneSided.insert(f)
}

// remove takes a flow out, and reports whether it was in.
func (t *table) remove(f *flow) bool {
	if !f.queued {
		return false
	}
	heap.Remove(t.queue(f), f.place)
	delete(t.flows, f.key)
	f.queued = false
	return true
}

// answer notes that the backend has answered. The flow may have left the table meanwhile.
func (t *table) answer(f *flow) {
	if f.queued {
		heap.Remove(t.queue(f), f.place)
		t.twoSided.insert(f)
	}
	f.answered = true
}

// evict takes out the flow that is missed least: one that has been idle for the grace rather than a busy one, of
// these one that never had an answer rather than one that had, of these the one idle longest. Nil if there is none.
func (t *table) evict(now time.Duration) *flow {
	one, two := t.oneSided.front(), t.twoSided.front()
	victim := one
	if one == nil || two != nil && now-one.stamp < grace && now-two.stamp >= grace {
		victim = two
	}
	if victim != nil {
		t.remove(victim)
	}
	return victim
}

// expire takes out the flows last seen at the time before or earlier.
func (t *table) expire(before time.Duration) []*flow {
	var gone []*flow
	for _, q := range []*idleQueue{&t.oneSided, &t.twoSided} {
		for f := q.front(); f != nil && f.stamp <= before; f = q.front() {
			t.remove(f)
			gone = append(gone, f)
		}
	}
	return gone
}

// oldest returns when the flow that has been idle longest was last seen.
func (t *table) oldest() (seen time.Duration, some bool) {
	for _, q := range []*idleQueue{&t.oneSided, &t.twoSided} {
		if f := q.front(); f != nil && (!some || f.stamp < seen) {
			seen, some = f.stamp, true
		}
	}
	return seen, some
}

// drain takes out all flows.
func (t *table) drain() []*flow {
	all := make([]*flow, 0, len(t.flows))
	for _, f := range t.flows {
		all = append(all, f)
	}
	for _, f := range all {
		t.remove(f)
	}
	return all
}

func (t *table) queue(f *flow) *idleQueue {
	if f.answered {
		return &t.twoSided
	}
	return &t.oneSided
}

// idleQueue is a heap of flows by stamp. A stamp is never later than the flow was seen (but for the moment between
// reading the clock and storing it), so once the stamp of the front is right no other flow has been idle longer.
type idleQueue []*flow

// front returns the flow that has been idle longest, with its stamp right, or nil.
func (q *idleQueue) front() *flow {
	for len(*q) > 0 {
		f := (*q)[0]
		seen := time.Duration(f.seen.Load())
		if seen <= f.stamp {
			return f
		}
		f.stamp = seen
		heap.Fix(q, 0)
	}
	return nil
}

func (q *idleQueue) insert(f *flow) {
	f.stamp = time.Duration(f.seen.Load())
	heap.Push(q, f)
}

// The methods of heap.Interface.

func (q idleQueue) Len() int           { return len(q) }
func (q idleQueue) Less(i, j int) bool { return q[i].stamp < q[j].stamp }

func (q idleQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *idleQueue) Push(x any) {
	f := x.(*flow)
	f.place = len(*q)
	*q = append(*q, f)
}

func (q *idleQueue) Pop() any {
	last := len(*q) - 1
	f := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return f
}
