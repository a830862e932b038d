package eventloop

// Verdict says how a Runner goes on.
type Verdict uint8

// What a Runner says after a slice.
const (
	Done  Verdict = iota // it leaves its queue
	Again                // it keeps its place at the head
	Next                 // it goes to the end of its queue
)

// Runner is what a loop's queues hold: a stream, or something short, that has more to do. Run does one slice of it; how long
// that takes is how long everybody else waits.
type Runner interface{ Run() Verdict }

// queue is the runners that want to go on, in the order of their turns. Its zero value is empty.
type queue struct {
	runners []Runner // a ring; nil where a runner was taken out
	head    int
	length  int
}

func (q *queue) push(r Runner) {
	if q.length == len(q.runners) {
		grown := make([]Runner, max(16, 2*len(q.runners)))
		for i := range q.length {
			grown[i] = q.runners[(q.head+i)%len(q.runners)]
		}
		q.runners, q.head = grown, 0
	}
	q.runners[(q.head+q.length)%len(q.runners)] = r
	q.length++
}

// pop takes the head out.
func (q *queue) pop() {
	q.runners[q.head] = nil
	q.head = (q.head + 1) % len(q.runners)
	q.length--
}

// first gives the runner whose turn it is, nil if there is none.
func (q *queue) first() Runner {
	for q.length > 0 {
		if r := q.runners[q.head]; r != nil {
			return r
		}
		q.pop()
	}
	return nil
}

// remove takes a runner out, wherever it is.
func (q *queue) remove(r Runner) {
	for i := range q.length {
		if place := &q.runners[(q.head+i)%len(q.runners)]; *place == r {
			*place = nil
			return
		}
	}
}

// Enqueue puts a stream at the end of the loop's queue of streams. It is in none of the queues already.
func (l *Loop) Enqueue(r Runner) { l.streams.push(r) }

// EnqueueShort puts what is over after few slices, and is in none of the queues already, at the end of the queue of such.
func (l *Loop) EnqueueShort(r Runner) { l.short.push(r) }

// Queued says whether a runner is in one of the queues.
func (l *Loop) Queued() bool { return l.streams.first() != nil || l.short.first() != nil }

// Dequeue takes a runner out of the queue that it is in, if it is. It must not be called by the runner's own Run.
func (l *Loop) Dequeue(r Runner) {
	l.short.remove(r)
	l.streams.remove(r)
}

// runSlice does one slice of the runner whose turn it is: what is short waits for no more than one of the streams', and
// streams have every second one.
func (l *Loop) runSlice() {
	q, r, short := &l.streams, l.streams.first(), l.short.first()
	if l.ranShort = short != nil && (r == nil || !l.ranShort); l.ranShort {
		q, r = &l.short, short
	}
	if r == nil {
		return
	}
	switch r.Run() {
	case Done:
		q.pop()
	case Next:
		q.pop()
		q.push(r)
	}
}
