package sctp

import (
	"container/heap"
	"time"
)

// An alarm rings once, when its time has come. Its zero value, with a function to call, is not set.
type alarm struct {
	at    time.Duration // since the loop's start
	ring  func()
	place int // in the heap, from 1 on; 0 while it is not set
}

// alarms are those that are set.
type alarms struct{ queue alarmQueue }

// set sets an alarm, or changes its time.
func (a *alarms) set(w *alarm, at time.Duration) {
	w.at = at
	if w.place == 0 {
		heap.Push(&a.queue, w)
		return
	}
	heap.Fix(&a.queue, w.place-1)
}

// setOnce sets an alarm unless it is set already.
func (a *alarms) setOnce(w *alarm, at time.Duration) {
	if w.place == 0 {
		a.set(w, at)
	}
}

func (a *alarms) stop(w *alarm) {
	if w.place != 0 {
		heap.Remove(&a.queue, w.place-1)
	}
}

// any tells whether an alarm is set.
func (a *alarms) any() bool { return len(a.queue) > 0 }

// next is the time of the first alarm, of which there must be one.
func (a *alarms) next() time.Duration { return a.queue[0].at }

// ring calls the alarms whose time has come.
func (a *alarms) ring(now time.Duration) {
	for a.any() && a.next() <= now {
		heap.Pop(&a.queue).(*alarm).ring()
	}
}

// alarmQueue is a heap.Interface.
type alarmQueue []*alarm

func (q alarmQueue) Len() int           { return len(q) }
func (q alarmQueue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q alarmQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

// Push is for package heap.
func (q *alarmQueue) Push(w any) {
	*q = append(*q, w.(*alarm))
	w.(*alarm).place = len(*q)
}

// Pop is for package heap.
func (q *alarmQueue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.place = 0
	return w
}
