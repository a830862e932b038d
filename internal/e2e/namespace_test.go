//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The copies of the test binary learn from their environment who they are (see the package documentation) and
// which control group is the parent of the containers.
const (
	stageVariable  = "E2E_STAGE"
	stageInit      = "init"
	stageTests     = "tests"
	cgroupVariable = "E2E_CGROUP"
)

// runInNamespaces runs process 1 of new namespaces to its end and returns the exit status of the tests in it.
func runInNamespaces() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		fail(err)
	}
	cgroup := "portsplice-e2e-" + strconv.Itoa(os.Getpid())

	runtime.LockOSThread() // the kernel sends Pdeathsig when this thread ends, not when the process does
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit, cgroupVariable+"=/"+cgroup)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fail(fmt.Errorf("start in new namespaces: %w", err))
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "e2e: interrupted: killed every process of the tests")
	}
	if err := removeCgroups(cgroup); err != nil {
		fail(err)
	}
	if err == nil {
		return 0
	}
	return max(1, cmd.ProcessState.ExitCode()) // -1 when it was killed
}

// removeCgroups removes the control groups of the containers once the last process in them is gone. Version 1 has
// a hierarchy for each controller, version 2 has one.
func removeCgroups(name string) error {
	var groups []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		groups = append(groups, found...)
	}
	for _, group := range groups {
		var tree []string
		err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				tree = append(tree, path)
			}
			return err
		})
		for _, path := range slices.Backward(tree) { // children before their parents
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // one hierarchy may be found under two names
			return err
		}
	}
	return nil
}

// actAsInit is process 1: it makes the namespaces usable, runs the tests in a process of their own and reaps the
// orphans of the daemons meanwhile. Its end is the end of every other process.
func actAsInit() int {
	if err := furnish(); err != nil {
		fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		fail(err)
	}
	if err := errors.Join(os.Setenv(stageVariable, stageTests), os.Setenv("TMPDIR", "/run")); err != nil {
		fail(err)
	}
	tests, err := os.StartProcess(self, os.Args, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		fail(err)
	}
	return reapUntil(tests.Pid)
}

// furnish gives the namespaces a loopback, a /proc that shows their own processes, and an empty /run: dockerd and
// containerd keep sockets there whatever their options say.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, path string }{{"proc", "/proc"}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m.kind, m.path, m.kind, unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.path, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// reapUntil reaps children until one of them ends, and returns its exit status.
func reapUntil(pid int) int {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fail(fmt.Errorf("wait for the tests: %w", err))
		case got == pid && status.Signaled():
			fail(fmt.Errorf("tests ended by %v", status.Signal()))
		case got == pid:
			return status.ExitStatus()
		}
	}
}
