// Package leakcheck keeps tests and the machine that they run on apart. It fails a package whose tests leave descriptors,
// goroutines or child processes behind, and hides that machine's own file of options from what they start.
//
// A test package opts in with
//
//	func TestMain(m *testing.M) { leakcheck.Main(m) }
package leakcheck

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds the wait for what the last test is still closing.
const patience = 10 * time.Second

// Main runs the tests of a package and exits the process: with the tests' own status, or 1 when they passed
// but left something behind. What was left is printed.
func Main(m *testing.M) { os.Exit(Run(m)) }

// noFile names no file of options.
const noFile = "PORTSPLICE_CONFIG=/nonexistent/portsplice.json"

// Environment is one in which a program reads no file of options but what more says, for a test that passes none of its own.
func Environment(more ...string) []string { return append([]string{noFile}, more...) }

// Run is Main for a package that has something of its own to clean up: it returns the exit status.
func Run(m *testing.M) int {
	name, value, _ := strings.Cut(noFile, "=")
	if err := os.Setenv(name, value); err != nil {
		fmt.Fprintln(os.Stderr, "leakcheck:", err)
		return 1
	}
	warmUp()
	before, err := take()
	if err != nil {
		fmt.Fprintln(os.Stderr, "leakcheck:", err)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	return verdict(before)
}

func verdict(before snapshot) int {
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "leakcheck: goroutines left behind:", err)
		return 1
	}
	var left []string
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		now, err := take()
		if err != nil {
			fmt.Fprintln(os.Stderr, "leakcheck:", err)
			return 1
		}
		left = now.since(before)
		if len(left) == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			break
		}
	}
	fmt.Fprintln(os.Stderr, "leakcheck: left behind:")
	for _, l := range left {
		fmt.Fprintln(os.Stderr, "\t"+l)
	}
	return 1
}

// snapshot lists what the process holds: one readable line for each descriptor and child process.
type snapshot []string

func (s snapshot) since(before snapshot) []string {
	var left []string
	for _, l := range s {
		if !slices.Contains(before, l) {
			left = append(left, l)
		}
	}
	return left
}

// warmUp makes the runtime open its own descriptors (epoll and eventfd), so that they are not taken for leaks.
func warmUp() {
	if r, w, err := os.Pipe(); err == nil {
		_ = r.SetDeadline(time.Time{})
		_ = r.Close()
		_ = w.Close()
	}
}
