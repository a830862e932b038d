package usage

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// shell runs a script until the test ends or it has read a line, which no script gets before.
func shell(t *testing.T, script string) (pid int, said io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	stdin, err := cmd.StdinPipe()
	benchtest.Must(t, err)
	stdout, err := cmd.StdoutPipe()
	benchtest.Must(t, err)
	benchtest.Must(t, cmd.Start())
	t.Cleanup(func() {
		benchtest.Must(t, stdin.Close())
		_ = cmd.Wait() // read fails at the end of the input
	})
	return cmd.Process.Pid, stdout
}

func TestTree(t *testing.T) {
	for _, test := range []struct {
		name, script string
		want         int
	}{
		{"one process", "echo; read x", 1},
		{"a child", "(echo; read x); true", 2},
		{"a grandchild", "((echo; read x); true); true", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			pid, said := shell(t, test.script)
			_, err := said.Read(make([]byte, 1))
			benchtest.Must(t, err)
			all, err := Tree(pid)
			benchtest.Must(t, err)
			if len(all) != test.want || all[0] != pid {
				t.Errorf("%d and what it started are %v, want %d processes", pid, all, test.want)
			}
		})
	}
}

// What a child used counts while it lives and when it has ended.
func TestTimeOfChildren(t *testing.T) {
	const work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
	for _, test := range []struct{ name, script string }{
		{"living", "(" + work + "; echo; read x); true"},
		{"ended", "(" + work + "); echo; read x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pid, said := shell(t, test.script)
			_, err := said.Read(make([]byte, 1))
			benchtest.Must(t, err)
			children, err := offspring()
			benchtest.Must(t, err)
			used, err := timeOf(children, pid)
			benchtest.Must(t, err)
			if used < 10*time.Millisecond { // 100,000 turns of dash take several times that
				t.Errorf("used %v", used)
			}
		})
	}
}

func TestTimeOfNoProcess(t *testing.T) {
	if _, err := timeOf(nil, 1<<30); err == nil {
		t.Error("a process that does not exist used time")
	}
}

func TestStatOfThisProcess(t *testing.T) {
	s, err := readStat("/proc/self/stat")
	benchtest.Must(t, err)
	if s.pid != os.Getpid() || s.parent != os.Getppid() {
		t.Errorf("got %+v, want %d and %d", s, os.Getpid(), os.Getppid())
	}
}
