package journal

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// The variables that make this program one that crashes: where the journal is, and with how many goroutines.
const (
	crashJournal    = "JOURNAL_TEST_SOCKET"
	crashGoroutines = "JOURNAL_TEST_GOROUTINES"
)

// crash has the runtime write a trace to the journal, and nowhere else.
func crash(path string) {
	f, err := stream(path, 3)
	if err == nil {
		err = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	if err == nil {
		err = f.Close()
	}
	var n int
	if err == nil {
		_, err = fmt.Sscan(os.Getenv(crashGoroutines), &n)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	debug.SetTraceback("all")
	started := make(chan struct{})
	for range n {
		go func() { started <- struct{}{}; select {} }()
		<-started
	}
	panic("on purpose")
}

// crashed runs a program that crashes, and gives what its journal reads once it has ended: not before.
func crashed(t *testing.T, goroutines int) (trace string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdout")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nothing more is expected of it
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), crashJournal+"="+path, fmt.Sprintf("%s=%d", crashGoroutines, goroutines))
	var said strings.Builder
	cmd.Stdout = &said // its standard error is /dev/null
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	const panicked = 2
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != panicked {
		t.Fatalf("the program ended with %v, and says %q; want exit status %d", err, said.String(), panicked)
	}
	conn, err := l.Accept() // the program has connected
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // it was read only
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// TestStreamTakesTrace: the trace of a crash arrives whole, behind what tells the journal whose it is.
func TestStreamTakesTrace(t *testing.T) {
	goroutines := 0
	if os.Geteuid() == 0 {
		goroutines = 20 // 60 frames: more than a usual buffer holds
	}
	all := crashed(t, goroutines)
	trace, ours := strings.CutPrefix(all, "portsplice\n\n3\n0\n0\n0\n0\npanic: on purpose\n")
	if got := strings.Count(trace, "created by "); !ours || !strings.Contains(trace, "journal.crash(") || got != goroutines {
		t.Errorf("the journal got %q, want a trace of crash and %d more goroutines", all, goroutines)
	}
}

// TestStreamNobodyReads: a journal that stands still keeps no process from ending.
func TestStreamNobodyReads(t *testing.T) {
	const goroutines = 3000 // a trace of more pieces than the buffer of root has room for
	if got := strings.Count(crashed(t, goroutines), "created by "); got == goroutines {
		t.Error("the buffer had room for all: this proves nothing")
	}
}

// TestStreamWithoutJournal: the error says what is missing.
func TestStreamWithoutJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdout")
	if f, err := stream(path, 3); f != nil || err == nil || err.Error() != "connect "+path+": no such file or directory" {
		t.Errorf("%v, %v", f, err)
	}
}
