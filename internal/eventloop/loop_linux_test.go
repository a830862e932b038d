package eventloop

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// readyFunc is a handler.
type readyFunc func(events uint32)

func (f readyFunc) Ready(events uint32) { f(events) }

// ringFunc is a ringer.
type ringFunc func()

func (f ringFunc) Ring(time.Duration) { f() }

// runFunc is a runner.
type runFunc struct{ run func() Verdict }

func (f *runFunc) Run() Verdict { return f.run() }

// idleLoop is a loop that nobody runs: the test takes its turns.
func idleLoop(t *testing.T) *Loop {
	t.Helper()
	return idleFirst(t, newGroup(t, Options{}))
}

// idleFirst is the first loop of a group that has just been made.
func idleFirst(t *testing.T, g *Group) *Loop {
	t.Helper()
	l := g.First()
	l.running = true
	t.Cleanup(func() { go l.run() }) // which ends: it is closed next
	return l
}

func newGroup(t *testing.T, o Options) *Group {
	t.Helper()
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// event gives a descriptor that is readable after each call of ready.
func event(t *testing.T) (fd int, ready func()) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(fd) })
	return fd, func() {
		if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Error(err)
		}
	}
}

const edge = unix.EPOLLIN | unix.EPOLLET

// watch has a loop note a name when the descriptor that it makes is ready.
func watch(t *testing.T, l *Loop, h func()) (ready func()) {
	t.Helper()
	fd, ready := event(t)
	if _, err := l.Watch(fd, edge, readyFunc(func(uint32) { h() })); err != nil {
		t.Fatal(err)
	}
	return ready
}

// A turn hears what brings new work, then the others, then those that waited for the end of its events; then one slice of
// one stream, however many wait.
func TestOrderOfATurn(t *testing.T) {
	l := idleLoop(t)
	var order []string
	note := func(what string) func() { return func() { order = append(order, what) } }
	small := watch(t, l, func() {
		note("small")()
		l.AtTurnEnd(turnEnd(note("turn end")))
	})
	fd, listener := event(t)
	if _, err := l.Listen(fd, edge, readyFunc(func(uint32) { note("listener")() })); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second"} {
		slices := 0
		l.Enqueue(&runFunc{func() Verdict {
			note(name)()
			if slices++; slices == 2 {
				return Next
			}
			return Again
		}})
	}
	small()
	listener()
	for range 3 {
		l.turn()
	}
	l.Post(note("task"))
	small()
	l.turn()
	want := []string{"listener", "small", "turn end", "first", "first", "second", "task", "small", "turn end", "second"}
	if !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}

// What asks for a turn's end when the events of its turn were heard already is told without a wait for others.
func TestTurnEndIsNotPutOff(t *testing.T) {
	l := idleLoop(t)
	told := false
	l.Enqueue(&runFunc{func() Verdict {
		l.AtTurnEnd(turnEnd(func() { told = true }))
		return Done
	}})
	l.turn()
	quiet := l.quiet
	if l.turn(); !told || l.quiet != quiet {
		t.Errorf("told: %v, after a wait of %v; want true, and none", told, l.quiet-quiet)
	}
}

type turnEnd func()

func (f turnEnd) TurnEnd() { f() }

// TestThreads: loops are tied to no thread while they run, and end one each.
func TestThreads(t *testing.T) {
	const many = 20
	threads := func() int {
		all, err := os.ReadDir("/proc/self/task")
		rig.Must(t, err)
		return len(all)
	}
	g := newGroup(t, Options{})
	g.Hold()
	for range many {
		l := g.Grow()
		l.Do(func() {
			stack := make([]byte, 1<<10)
			if stack = stack[:runtime.Stack(stack, false)]; bytes.Contains(stack, []byte("locked to thread")) {
				t.Errorf("%s", stack)
			}
		})
	}
	had := 0 // with those that Go keeps, from before
	rig.Until(t, "each has a thread to wait with", func() bool {
		had = threads()
		return had >= many
	})
	for range many {
		g.Shrink()
	}
	rig.Until(t, "they have ended", func() bool { return g.Len() == 1 && threads() < had-many/2 })
}

// TestIdleLoopHasNoThread: the first loop, when it has had nothing to do for a while, waits in Go's poller, until an event, a
// task or a deadline ends that. It leaves no descriptor behind.
func TestIdleLoopHasNoThread(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // or it closes what is left behind
	g := newGroup(t, Options{})
	g.Hold()
	l, had := g.First(), epolls(t)
	over := make(chan int, 1)
	end := func() { over <- epolls(t) } // on the loop, which does not wait then
	fd, ready := event(t)
	l.Do(func() {
		_, err := l.Watch(fd, edge, readyFunc(func(uint32) { end() }))
		rig.Check(t, err)
	})
	var timer Timer
	set := func(after time.Duration) {
		l.Do(func() { l.SetTimer(&timer, ringFunc(end), l.Now()+after) })
	}
	stacks, after := make([]byte, 1<<18), 3*restAfter
	for _, test := range []struct {
		by    string
		begin func()
		end   func()
	}{
		{"an event", func() {}, ready},
		{"a task", func() {}, func() { l.Post(end) }},
		{"a deadline", func() { set(after) }, func() {}},
		{"an event before the deadline", func() { set(time.Hour) }, ready},
	} {
		test.begin()
		rig.Until(t, "the loop has no thread, to be ended by "+test.by, func() bool {
			select {
			case <-over: // the deadline has come before the loop was quiet
				after *= 2
				set(after)
			default:
			}
			return parked(stacks)
		})
		test.end()
		rig.Until(t, "that is ended by "+test.by, func() bool { return len(over) > 0 })
		if has := <-over; has != had {
			t.Errorf("%d descriptors of epoll after %s, want %d", has, test.by, had)
		}
	}
	l.Do(func() { l.StopTimer(&timer) })
}

// parked says whether the goroutine of a loop waits in Go's poller and not in a system call, which keeps a thread. It is the only
// one: other groups have ended with their tests.
func parked(stacks []byte) bool {
	for stack := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
		if bytes.Contains(stack, []byte("eventloop.(*Loop).run(")) {
			state, _, _ := bytes.Cut(stack, []byte("\n"))
			return bytes.Contains(state, []byte("[IO wait"))
		}
	}
	return false
}

// epolls is how many descriptors of epoll the process has, with Go's own.
func epolls(t *testing.T) (n int) {
	all, err := os.ReadDir("/proc/self/fd")
	rig.Check(t, err)
	for _, fd := range all {
		if is, _ := os.Readlink("/proc/self/fd/" + fd.Name()); is == "anon_inode:[eventpoll]" {
			n++
		}
	}
	return n
}

// TestIdleLoopWithoutDescriptors: a loop that has no descriptor left for that waits as it does otherwise.
func TestIdleLoopWithoutDescriptors(t *testing.T) {
	l := idleLoop(t)
	l.quiet = restAfter
	heard := false
	watch(t, l, func() { heard = true })()
	var before unix.Rlimit
	rig.Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	rig.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}))
	l.turn()
	rig.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before))
	if !heard {
		t.Error("it has not heard an event")
	}
}

// TestInterruptedWait: a loop waits on when a signal has interrupted it.
func TestInterruptedWait(t *testing.T) {
	g := newGroup(t, Options{})
	g.Hold()
	l := g.Grow()
	var thread, sent int
	l.Do(func() { thread = unix.Gettid() })
	rig.Until(t, "it was interrupted many times", func() bool {
		rig.Must(t, unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)) // by what Go's scheduler interrupts with, too
		sent++
		return sent == 100
	})
	if !l.Do(func() {}) {
		t.Error("it has ended")
	}
}
