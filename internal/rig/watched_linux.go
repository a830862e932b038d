package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Watched gives the events that epoll instances of this process watch a descriptor for (proc_pid_fdinfo(5)).
func Watched(t testing.TB, fd int) (events uint32) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fdinfo/*")
	Must(t, err)
	for _, path := range all {
		info, _ := os.ReadFile(path) // it may have been closed meanwhile
		for line := range strings.Lines(string(info)) {
			var target int
			var asked uint32
			if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &target, &asked); n == 2 && target == fd {
				events |= asked
			}
		}
	}
	return events
}
