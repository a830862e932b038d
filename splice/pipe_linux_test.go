package splice

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestPipesAreBounded lends as many pipes as there may be, and no more until one is given back.
func TestPipesAreBounded(t *testing.T) {
	var pool pipePool
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
	if len(pool.free) != maxFreePipes || pool.open.Load() != maxFreePipes {
		t.Errorf("%d pipes are kept and %d open, want %d", len(pool.free), pool.open.Load(), maxFreePipes)
	}
	pool.close()
	if open := pool.open.Load(); open != 0 {
		t.Errorf("%d pipes are open at the end", open)
	}
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
