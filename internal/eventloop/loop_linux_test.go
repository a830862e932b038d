package eventloop

import (
	"bytes"
	"os"
	"runtime"
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
