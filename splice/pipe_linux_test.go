package splice

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestPipesAreBounded lends as many pipes as there may be, and no more until one is given back.
func TestPipesAreBounded(t *testing.T) {
	e := &Engine{kernel: linux{}}
	pool := &newLoop(e, group(t).First()).pipes
	lent := make([]*pipe, maxPipes)
	for i := range lent {
		if lent[i] = pool.get(linux{}); lent[i] == nil {
			t.Fatalf("%d pipes were lent, want %d", i, maxPipes)
		}
	}
	if beyond := pool.get(linux{}); beyond != nil {
		t.Errorf("more than %d pipes were lent", maxPipes)
		pool.destroy(beyond)
	}
	pool.put(lent[0])
	if lent[0] = pool.get(linux{}); lent[0] == nil {
		t.Error("a pipe that was given back is not lent again")
	}
	for _, p := range lent {
		pool.put(p)
	}
	pool.trim(len(pool.free))
	if open := e.pipes.Load(); open != 0 {
		t.Errorf("%d pipes are open at the end", open)
	}
	pool.loop.StopTimer(&pool.timer)
}

// TestPipesAreKeptWhileTheyAreUsed: what was needed since the pool was looked at last is kept, and the rest is closed.
func TestPipesAreKeptWhileTheyAreUsed(t *testing.T) {
	e := &Engine{kernel: linux{}}
	pool := &newLoop(e, group(t).First()).pipes
	use := func(n int) {
		var lent []*pipe
		for range n {
			lent = append(lent, pool.get(linux{}))
		}
		for _, p := range lent {
			pool.put(p)
		}
	}
	use(64)
	for _, test := range []struct{ used, kept int }{{64, 64}, {64, 64}, {3, 3}, {1, 1}, {0, 0}} {
		pool.Ring(0)
		use(test.used)
		pool.Ring(0)
		if open := int(e.pipes.Load()); open != test.kept || len(pool.free) != test.kept {
			t.Errorf("%d pipes are open and %d free after %d were used, want %d", open, len(pool.free), test.used, test.kept)
		}
	}
	pool.loop.StopTimer(&pool.timer)
	if pool.Ring(0); pool.timer.Set() {
		t.Error("an empty pool waits for time to pass")
	}
}

// TestPipeForAUserWithFewPages: where the user may have no pipe of pipeSize any more, one of the half is lent.
func TestPipeForAUserWithFewPages(t *testing.T) {
	needroot.Check(t) // to be a user who has no pipe yet
	e := &Engine{kernel: linux{}}
	pool := &newLoop(e, group(t).First()).pipes
	rig.AsUser(t, 1_000_000+os.Getpid(), func() { // nobody else's
		var held []*pipe
		for p := pool.get(linux{}); p != nil; p = pool.get(linux{}) {
			held = append(held, p)
		}
		_, err := unix.FcntlInt(uintptr(held[0].w), unix.F_SETPIPE_SZ, pipeSize/2)
		rig.Check(t, err)
		p := pool.get(linux{})
		if p == nil || p.size != pipeSize/2 {
			t.Errorf("got %+v, want a pipe of %d bytes", p, pipeSize/2)
		}
		if p != nil {
			held = append(held, p)
		}
		for _, p := range held {
			pool.destroy(p)
		}
	})
}

// TestNoPipeToBeHad: a pump that gets no pipe copies, and its connection does not notice.
func TestNoPipeToBeHad(t *testing.T) {
	const size = 8 << 20
	for _, policy := range []struct {
		name string
		Policy
	}{{"adaptive", Adaptive}, {"always", Always}} {
		for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
			t.Run(policy.name+" "+unix.ErrnoName(errno), func(t *testing.T) {
				e, err := New(Options{Policy: policy.Policy})
				rig.Must(t, err)
				defer func() { rig.Check(t, e.Close()) }()
				e.FailPipes(errno)
				fd, addr := rig.Bind(t, rig.Loopback)
				_, err = e.Add(fd, rig.Backend(t, rig.Echo))
				rig.Must(t, err)
				rig.Exchange(t, rig.Dial(t, "tcp", addr), make([]byte, size))
				rig.Until(t, "all bytes are counted as copied", func() bool { return e.Stats().Copied == 2*size })
				if s := e.Stats(); s.Spliced != 0 || s.PipesRefused == 0 || s.Aborted != 0 {
					t.Errorf("%v; want nothing spliced, pipes refused and nothing aborted", s)
				}
			})
		}
	}
}
