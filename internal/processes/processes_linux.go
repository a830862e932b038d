package processes

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one that was there a moment ago.
type Process struct {
	PID  int
	Args []string // its command line, the name first
}

// All lists the processes that have a command line, so none of the kernel's.
func All() (all []Process, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		p := Process{PID: pid}
		if p.Args = p.strings("cmdline"); len(p.Args) > 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

func (p Process) path(name string) string { return filepath.Join("/proc", strconv.Itoa(p.PID), name) }

func (p Process) strings(name string) []string {
	text, err := os.ReadFile(p.path(name))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// Alive says whether it still is.
func (p Process) Alive() bool {
	_, err := os.Stat(p.path(""))
	return err == nil
}

// Exe is the file that it runs; empty if this process may not know. Replaced says that the path is of another file by now, or none.
func (p Process) Exe() (path string, replaced bool) {
	path, err := os.Readlink(p.path("exe"))
	if err != nil {
		return "", false
	}
	return strings.CutSuffix(path, " (deleted)")
}

// User is its effective user; -1 if it has ended.
func (p Process) User() int {
	var owner unix.Stat_t
	if unix.Stat(p.path(""), &owner) != nil {
		return -1
	}
	return int(owner.Uid)
}

// Shares says whether a namespace ("pid", "net") of it is this process's. Of another user's only root knows.
func (p Process) Shares(namespace string) bool {
	theirs, err := os.Readlink(p.path("ns/" + namespace))
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/" + namespace)
	return err == nil && ours == theirs
}

// Variable gives a variable of the environment that it was started with.
func (p Process) Variable(name string) (value string, there bool) {
	for _, entry := range p.strings("environ") {
		if value, there = strings.CutPrefix(entry, name+"="); there {
			return value, true
		}
	}
	return "", false
}

// Descriptors is how many it has open and how many it may (RLIMIT_NOFILE). Go programs raise the limit to the hard one.
func (p Process) Descriptors() (open int, limit unix.Rlimit, err error) {
	if err := unix.Prlimit(p.PID, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0, limit, os.NewSyscallError("prlimit", err)
	}
	entries, err := os.ReadDir(p.path("fd"))
	return len(entries), limit, err
}

// Started is when, to a hundredth of a second (proc(5), starttime).
func (p Process) Started() (time.Time, error) {
	stat, err := os.ReadFile(p.path("stat"))
	if err != nil {
		return time.Time{}, err
	}
	const after = 22 - 2 // fields, from the one after the name in parentheses on
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < after {
		return time.Time{}, os.ErrInvalid
	}
	ticks, err := strconv.ParseInt(fields[after-1], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	const hertz = 100 // USER_HZ, of every architecture that we build for
	return time.Now().Add(time.Duration(ticks)*time.Second/hertz - time.Duration(boot.Nano())), nil
}
