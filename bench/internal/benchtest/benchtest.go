// Package benchtest is what the tests of the benchmarks have in common: much of what they test is a program.
package benchtest

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

// AsProgram in the environment makes a test binary the program.
const AsProgram = "BENCH_TEST_AS_PROGRAM"

// Timeout bounds what a test waits for.
const Timeout = 30 * time.Second

// Main runs the tests of a package, or the program in a process that was started as such.
func Main(m *testing.M, program func()) {
	if os.Getenv(AsProgram) != "" {
		program()
		os.Exit(0)
	}
	leakcheck.Main(m)
}

// Must ends the test after a failure of what it needs.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Program is the program of the package with arguments.
func Program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	Must(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), AsProgram+"=1")
	cmd.Stderr = os.Stderr
	return cmd
}

// Start starts the program as dockerd starts a proxy, with files from descriptor 4 on, and gives what it says on the
// status pipe. It is killed when the test ends.
func Start(t *testing.T, files []*os.File, args ...string) (cmd *exec.Cmd, said string) {
	t.Helper()
	status, report, err := os.Pipe()
	Must(t, err)
	defer func() { Must(t, status.Close()) }()
	Must(t, status.SetReadDeadline(time.Now().Add(Timeout)))
	cmd = Program(t, args...)
	cmd.ExtraFiles = append([]*os.File{report}, files...)
	Must(t, cmd.Start())
	Must(t, report.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // and been waited for
	})
	answer, err := io.ReadAll(status)
	Must(t, err)
	return cmd, string(answer)
}

// OwnAddress is an address of the loopback network that no other test process uses.
func OwnAddress() netip.Addr {
	id := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(1 + id>>14), byte(id >> 7 & 127), byte(1 + id&127)})
}
