package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// comesToRest waits until the program uses next to no CPU: less than a tenth of what another proxy needs meanwhile for
// a thousand small messages. One that spins never does.
func (p *process) comesToRest(t *testing.T) {
	t.Helper()
	const messages = 1000
	frontend := freePort(t, "tcp", ours())
	other := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()))}.serve(t)
	conn := dial(t, "tcp", frontend)
	until(t, "the program rests", func() bool {
		own, others := p.cpu(t), other.cpu(t)
		for range messages {
			exchange(t, conn, "hello")
		}
		return p.cpu(t)-own < (other.cpu(t)-others)/10
	})
}

// cpu is the time that all threads of the process have used.
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Timespec
	clock := int32(^p.Process.Pid<<3 | 2) // CPUCLOCK_SCHED of a process (include/linux/posix-timers_types.h)
	must(t, unix.ClockGettime(clock, &used))
	return time.Duration(used.Nano())
}

func (p *process) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Process.Pid))
	must(t, err)
	return len(entries)
}

// privateKB is the memory that the process has for itself alone. (Private_Dirty would count pages of the program's file
// too, which was written a moment ago.)
func (p *process) privateKB(t *testing.T) (kB int) {
	t.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.Process.Pid))
	must(t, err)
	for line := range strings.Lines(string(rollup)) {
		if _, err := fmt.Sscanf(line, "Anonymous: %d kB", &kB); err == nil {
			return kB
		}
	}
	t.Fatalf("no anonymous memory in %q", rollup)
	return 0
}
