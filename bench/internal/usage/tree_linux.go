package usage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree lists processes and their descendants that live: some proxies are one process, some have workers, and some fork
// for every connection.
func Tree(pids ...int) ([]int, error) {
	children, err := offspring()
	return withDescendants(pids, children), err
}

// offspring lists the children of every process.
func offspring() (children map[int][]int, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = proc.Close() }() // it was read only
	names, err := proc.Readdirnames(-1) // filepath.Glob takes as long as all else here
	if err != nil {
		return nil, err
	}
	children = map[int][]int{}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue // no process
		}
		s, err := readStat("/proc/" + name + "/stat")
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		children[s.parent] = append(children[s.parent], s.pid)
	}
	return children, nil
}

func withDescendants(pids []int, children map[int][]int) []int {
	all := slices.Clone(pids)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// timeOf is the CPU time of processes and of all that they started, ended ones too.
func timeOf(children map[int][]int, pids ...int) (time.Duration, error) {
	var sum time.Duration
	for i, p := range withDescendants(pids, children) {
		used, err := own(p)
		if i >= len(pids) && gone(err) {
			continue // its parent has its time
		}
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", p, err)
		}
		sum += used
	}
	return sum, nil
}

// own is the time of a process and of its children that have ended and been waited for. The CPU clock of a process is
// the scheduler's own sum over its threads, ended ones too, in nanoseconds and up to date: /proc/PID/stat has ticks of
// 10 ms, which is enough for the sum over ended children, and schedstat lacks what the present time slice and the ended
// threads used.
func own(pid int) (time.Duration, error) {
	const schedClock = 2                 // CPUCLOCK_SCHED in the kernel's posix-timers.h
	clock := int32(^pid)<<3 | schedClock // as MAKE_PROCESS_CPUCLOCK
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	s, err := readStat("/proc/" + strconv.Itoa(pid) + "/stat")
	return time.Duration(t.Nano()) + s.children, err
}

// gone tells whether an error means that the process has ended. The clock of a process that has ended is invalid.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// stat is what is needed of /proc/PID/stat.
type stat struct {
	pid, parent int
	children    time.Duration // CPU time of those that have been waited for
}

func readStat(path string) (s stat, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	// The name of the program stands in parentheses, and may contain anything. (fmt.Sscan takes as long as the kernel.)
	text := string(b)
	pid, _, _ := strings.Cut(text, " ")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return s, fmt.Errorf("%s: %q", path, text)
	}
	var user, system int
	for _, number := range []struct {
		text string
		to   *int
	}{{pid, &s.pid}, {fields[1], &s.parent}, {fields[13], &user}, {fields[14], &system}} {
		if *number.to, err = strconv.Atoi(number.text); err != nil {
			return s, fmt.Errorf("%s: %w", path, err)
		}
	}
	s.children = time.Duration(user+system) * tick
	return s, nil
}
