package eventloop

import "time"

// overrun is how long deadlines that have passed wait, at most, for the queues to be empty. A process that has stood
// still reads the 5,000 datagrams that a socket of 4 MiB holds in a fifth of it.
const overrun = 250 * time.Millisecond

// Ringer is told when its Timer's time has come. now is when that was found out, on the loop's clock.
type Ringer interface{ Ring(now time.Duration) }

// Timer is embedded by what waits for time to pass. Its zero value is not set. It belongs to one loop while it is set.
type Timer struct{ place int32 } // in the heap, from 1 on

// Set says whether the timer is set.
func (t *Timer) Set() bool { return t.place != 0 }

// SetTimer has r be told when the loop's clock (Now) has reached at. A timer that is set already is changed.
func (l *Loop) SetTimer(t *Timer, r Ringer, at time.Duration) {
	if t.Set() {
		l.timers.change(int(t.place-1), at)
		return
	}
	l.timers.add(at, t, r)
}

// StopTimer unsets a timer, if it is set.
func (l *Loop) StopTimer(t *Timer) {
	if t.Set() {
		l.timers.remove(int(t.place - 1))
	}
}

// Now is the loop's clock: the time since the group's start, as it was when it was first asked for in this turn.
func (l *Loop) Now() time.Duration {
	if !l.fresh {
		l.fresh, l.now = true, l.group.clock()
	}
	return l.now
}

// ring acts on deadlines; see Time in the package documentation. The clock is not read while no timer is set.
func (l *Loop) ring() {
	switch {
	case len(l.timers) == 0:
		l.passed = 0
		return
	case l.passed == 0:
		if now := l.Now(); l.timers[0].at <= now {
			l.passed = now // the next turn looks without waiting
		}
		return
	case l.more && l.Now()-l.passed < overrun:
		return
	}
	now := l.passed
	l.passed = 0
	for len(l.timers) > 0 && l.timers[0].at <= now {
		l.timers.remove(0).Ring(now)
	}
}

// deadline is a timer that is set.
type deadline struct {
	at     time.Duration
	timer  *Timer
	ringer Ringer
}

// deadlines is a binary heap: the first is the next. (Package container/heap would allocate for each.)
type deadlines []deadline

func (d *deadlines) add(at time.Duration, t *Timer, r Ringer) {
	*d = append(*d, deadline{at, t, r})
	last := len(*d) - 1
	t.place = int32(last + 1)
	d.up(last)
}

// change gives the deadline at i another time.
func (d *deadlines) change(i int, at time.Duration) {
	(*d)[i].at = at
	d.up(i)
	d.down(i)
}

func (d *deadlines) remove(i int) Ringer {
	gone, last := (*d)[i], len(*d)-1
	d.swap(i, last)
	(*d)[last] = deadline{}
	*d = (*d)[:last]
	gone.timer.place = 0
	if i < last {
		d.up(i)
		d.down(i)
	}
	return gone.ringer
}

func (d *deadlines) up(i int) {
	for parent := (i - 1) / 2; i > 0 && (*d)[i].at < (*d)[parent].at; i, parent = parent, (parent-1)/2 {
		d.swap(i, parent)
	}
}

func (d *deadlines) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(*d); child++ {
			if (*d)[child].at < (*d)[least].at {
				least = child
			}
		}
		if least == i {
			return
		}
		d.swap(i, least)
		i = least
	}
}

func (d *deadlines) swap(i, j int) {
	a := *d
	a[i], a[j] = a[j], a[i]
	a[i].timer.place, a[j].timer.place = int32(i+1), int32(j+1)
}
