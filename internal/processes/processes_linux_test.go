package processes

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestChild: what is known of a process is what it was started with.
func TestChild(t *testing.T) {
	before := time.Now()
	child := exec.Command("/bin/sh", "-c", "read line; :")
	child.Env = []string{"A=1", "PORTSPLICE_X=two words"}
	end, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(all, func(p Process) bool { return p.PID == child.Process.Pid })
	if at < 0 {
		t.Fatal("the child is not listed")
	}
	p := all[at]
	if diff := cmp.Diff([]string{"/bin/sh", "-c", "read line; :"}, p.Args); diff != "" {
		t.Error(diff)
	}
	shell, err := os.Stat("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	path, replaced := p.Exe()
	if info, err := os.Stat(path); err != nil || replaced || !os.SameFile(shell, info) {
		t.Errorf("it runs %q, replaced %v, %v", path, replaced, err)
	}
	if value, there := p.Variable("PORTSPLICE_X"); value != "two words" || !there {
		t.Errorf("a variable is %q, %v", value, there)
	}
	if value, there := p.Variable("PORTSPLICE"); there {
		t.Errorf("a variable that it does not have is %q", value)
	}
	if !p.Alive() || p.User() != os.Geteuid() || !p.Shares("pid") || !p.Shares("net") {
		t.Errorf("alive %v, user %d, namespaces %v %v", p.Alive(), p.User(), p.Shares("pid"), p.Shares("net"))
	}
	if open, limit, err := p.Descriptors(); err != nil || open < 1 || uint64(open) > limit.Max {
		t.Errorf("descriptors: %d of %+v, %v", open, limit, err)
	}
	const tick = 20 * time.Millisecond // two of starttime's
	if started, err := p.Started(); err != nil || started.Before(before.Add(-tick)) || started.After(time.Now().Add(tick)) {
		t.Errorf("started %v, %v; the test began %v", started, err, before)
	}
	if err := end.Close(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if p.Alive() || p.User() != -1 {
		t.Error("it is alive after its end")
	}
}
