//go:build linux && sctp_kernel

package sctp

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestProgramIdle: an idle association costs the program two descriptors and a small struct, and no thread.
func TestProgramIdle(t *testing.T) {
	const count = 400
	backend, at := listen(t, "127.0.0.1", 10)
	front := freePort(t, "127.0.0.1")
	r := run(t, "0\n", nil, arguments(front, at)...)
	converse := func() {
		client := dial(t, front, 10)
		server := backend.accept()
		m := newParcel(1000, 9)
		client.send(m)
		server.expect(m)
	}
	for range 20 { // the first ones have the program grow what it keeps
		converse()
	}
	before := r.use()
	for range count {
		converse()
	}
	after := r.use()
	if got := after.descriptors - before.descriptors; got != 2*count {
		t.Errorf("%d descriptors for %d associations; want two for each", got, count)
	}
	if got := after.threads - before.threads; got > 2 { // the collector of garbage may start one
		t.Errorf("%d threads for %d associations", got, count)
	}
	if got := float64(after.private-before.private) / count; got > 3 {
		t.Errorf("%.2f kB of private memory for an association; want 3 at most", got)
	} else {
		t.Logf("%.2f kB of private memory for an association", got)
	}
}

// use is what a process uses: private memory in kB.
type use struct{ descriptors, threads, private int }

func (r *running) use() (u use) {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", r.Process.Pid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		r.t.Fatal(err)
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		r.t.Fatal(err)
	}
	u.descriptors = len(fds)
	for line := range strings.Lines(string(status)) {
		// Other lines are not what is looked for.
		_, _ = fmt.Sscanf(line, "Threads: %d", &u.threads)
		_, _ = fmt.Sscanf(line, "RssAnon: %d", &u.private)
	}
	return u
}
