package usage

import (
	"os/exec"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// shell runs a script until the test ends, and waits for the line that it writes. No script reads one before.
func shell(t *testing.T, script string) (pid int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	stdin, err := cmd.StdinPipe()
	rig.Must(t, err)
	stdout, err := cmd.StdoutPipe()
	rig.Must(t, err)
	rig.Must(t, cmd.Start())
	t.Cleanup(func() {
		rig.Check(t, stdin.Close())
		_ = cmd.Wait() // read fails at the end of the input
	})
	_, err = stdout.Read(make([]byte, 1))
	rig.Must(t, err)
	return cmd.Process.Pid
}

func TestTree(t *testing.T) {
	for script, want := range map[string]int{
		"echo; read x":                 1,
		"(echo; read x); true":         2, // with a child
		"((echo; read x); true); true": 3, // with a grandchild
	} {
		pid := shell(t, script)
		if all := Tree(pid); len(all) != want || all[0] != pid {
			t.Errorf("%s: %d and what it started are %v, want %d processes", script, pid, all, want)
		}
	}
}

// What a child used counts while it lives and when it has ended.
func TestTimeOfChildren(t *testing.T) {
	const work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
	for _, script := range []string{"(" + work + "; echo; read x); true", "(" + work + "); echo; read x"} {
		if used := Read([]int{shell(t, script)}, nil).Proxy; used < 10*time.Millisecond { // 100,000 turns of dash take several times that
			t.Errorf("%s: used %v", script, used)
		}
	}
}

func TestTimeOfNoProcess(t *testing.T) {
	if failure.Caught(func() { Read([]int{1 << 30}, nil) }) == nil {
		t.Error("a process that does not exist used time")
	}
}
