//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that the tests or the daemon have started.
type process struct {
	pid  int
	args []string
}

func (p process) path(elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(p.pid)}, elem...)...)
}

// processes lists every process of the namespace but this one and process 1. One that ends meanwhile is left out.
func processes(t testing.TB) []process {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		p := process{pid: pid}
		line, err := os.ReadFile(p.path("cmdline"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		p.args = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		all = append(all, p)
	}
	return all
}

// proxies lists the processes that run the program under test.
func proxies(t testing.TB) []process {
	t.Helper()
	return running(t, program)
}

// running lists the processes that run the file at path.
func running(t testing.TB, path string) (found []process) {
	t.Helper()
	for _, p := range processes(t) {
		if p.runs(t, path) {
			found = append(found, p)
		}
	}
	return found
}

// isWorker says whether the process serves the ports of the program under test, if that is the shim.
func (p process) isWorker() bool {
	return len(p.args) == 2 && p.args[0] == filepath.Join(filepath.Dir(program), "portsplice") && p.args[1] == "worker"
}

// runs reports whether the process executes the file at path. A process that has ended executes nothing.
func (p process) runs(t testing.TB, path string) bool {
	t.Helper()
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat(p.path("exe"))
	return err == nil && os.SameFile(want, got)
}

// listenerOwners returns the processes that hold the TCP socket which listens on a port of every address. The
// table is tcp or tcp6, the name of a file in /proc/net.
func listenerOwners(t testing.TB, table string, port int) []process {
	t.Helper()
	inode := listenerInode(t, table, port)
	var owners []process
	for _, p := range processes(t) {
		links, err := filepath.Glob(p.path("fd", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && target == "socket:["+inode+"]" {
				owners = append(owners, p)
			}
		}
	}
	return owners
}

func listenerInode(t testing.TB, table string, port int) string {
	t.Helper()
	rows, err := os.ReadFile("/proc/self/net/" + table)
	if err != nil {
		t.Fatal(err)
	}
	anyAddress := map[string]string{"tcp": strings.Repeat("0", 8), "tcp6": strings.Repeat("0", 32)}[table]
	local := fmt.Sprintf("%s:%04X", anyAddress, port)
	for row := range strings.Lines(string(rows)) {
		// sl, local address, remote address, state (0A is LISTEN), four more, retransmits, inode
		if f := strings.Fields(row); len(f) > 9 && f[1] == local && f[3] == "0A" {
			return f[9]
		}
	}
	t.Fatalf("nothing listens on port %d of every address in /proc/net/%s:\n%s", port, table, rows)
	return ""
}

func (p process) String() string {
	return fmt.Sprintf("process %d: %s", p.pid, strings.Join(p.args, " "))
}

// describe tells the state of a process and what it holds open. What cannot be read is left out: the process may
// end at any time.
func (p process) describe() string {
	var b strings.Builder
	fmt.Fprintln(&b, p)
	status, _ := os.ReadFile(p.path("status"))
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "State:") || strings.HasPrefix(line, "Threads:") || strings.HasPrefix(line, "PPid:") {
			b.WriteString("\t" + line)
		}
	}
	links, _ := filepath.Glob(p.path("fd", "*"))
	for _, link := range links {
		target, _ := os.Readlink(link)
		fmt.Fprintf(&b, "\tfd %s -> %s\n", filepath.Base(link), target)
	}
	return b.String()
}

// expectNothingLeft fails the test when processes outlive the daemon, and kills them: every process here was
// started by the test.
func expectNothingLeft(t testing.TB) {
	t.Helper()
	if waitFor(func() bool { return len(processes(t)) == 0 }) {
		return
	}
	for _, p := range processes(t) {
		t.Errorf("left behind: %s", p.describe())
		if err := unix.Kill(p.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
	}
}

// eventually waits until ok holds, and ends the test when it does not in time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !waitFor(ok) {
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// waitFor polls until ok holds, and reports false when it does not in time.
func waitFor(ok func() bool) bool {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			return false
		}
	}
	return true
}
