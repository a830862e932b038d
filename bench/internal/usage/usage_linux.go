package usage

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// Times is a reading of the clock and of CPU times.
type Times struct {
	Clock   time.Time
	Proxy   time.Duration // children included
	Ends    time.Duration // client and server
	Machine time.Duration // of everything that is not idle
}

// Read reads the times of a proxy's processes, if there is a proxy, and of the ends of its traffic. The clock comes last.
func Read(proxy, ends []int) (t Times) {
	children := offspring()
	t.Proxy, t.Ends, t.Machine = timeOf(children, proxy...), timeOf(children, ends...), machineTime()
	t.Clock = time.Now()
	return t
}

// Since is the time between two readings.
func (t Times) Since(before Times) time.Duration { return t.Clock.Sub(before.Clock) }

// Each gives the CPU times between two readings: for each of n in the unit, and what processes that have nothing to do
// with the benchmark took of the CPUs.
func (t Times) Each(before Times, n float64, unit time.Duration, suffix string) map[string]float64 {
	proxy, ends, machine := t.Proxy-before.Proxy, t.Ends-before.Ends, t.Machine-before.Machine
	all := t.Since(before) * time.Duration(runtime.NumCPU())
	v := map[string]float64{
		"machine-" + suffix: In(unit, machine) / n,
		"load-" + suffix:    In(unit, ends) / n,
		Others:              100 * float64(machine-proxy-ends) / float64(all),
	}
	if proxy != 0 {
		v["proxy-"+suffix] = In(unit, proxy) / n
	}
	return v
}

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every architecture of Go's.
const tick = 10 * time.Millisecond

// In is a duration in a unit.
func In(unit, d time.Duration) float64 { return float64(d) / float64(unit) }

// machineTime is how long the CPUs have been busy, to be compared with an earlier reading: all the time there is less
// what /proc/stat calls idle, waiting for a disk, or stolen by a hypervisor. Those are measured on a kernel with
// NO_HZ, whereas its fields for work are samples of the tick, which work that is woken by timers or sleeps in step
// with them deceives: they were seen to miss a fifth of a ping-pong.
func machineTime() time.Duration {
	proc := failure.Must(procfs.NewDefaultFS())
	var uptime unix.Timespec // right before the file is read: what lies between counts for each CPU
	failure.Check(os.NewSyscallError("clock_gettime", unix.ClockGettime(unix.CLOCK_MONOTONIC, &uptime)))
	stat := failure.Must(proc.Stat())
	cpus, all := time.Duration(len(stat.CPU)), stat.CPUTotal // in seconds
	return cpus*time.Duration(uptime.Nano()) - time.Duration((all.Idle+all.Iowait+all.Steal)*float64(time.Second))
}

// Tree lists processes and their descendants that live: some proxies are one process, some have workers, and some fork
// for every connection.
func Tree(pids ...int) []int { return withDescendants(pids, offspring()) }

// offspring lists the children of every process.
func offspring() map[int][]int {
	children := map[int][]int{}
	for _, p := range failure.Must(procfs.AllProcs()) {
		stat, err := p.Stat()
		if gone(err) {
			continue
		}
		failure.Check(err)
		children[stat.PPID] = append(children[stat.PPID], p.PID)
	}
	return children
}

func withDescendants(pids []int, children map[int][]int) []int {
	all := slices.Clone(pids)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// timeOf is the CPU time of processes and of all that they started, ended ones too.
func timeOf(children map[int][]int, pids ...int) (sum time.Duration) {
	for i, p := range withDescendants(pids, children) {
		used, err := own(p)
		if i >= len(pids) && gone(err) {
			continue // its parent has its time
		}
		if err != nil {
			failure.Fail("CPU time of process %d: %w", p, err)
		}
		sum += used
	}
	return sum
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
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	return time.Duration(t.Nano()) + time.Duration(stat.CUTime+stat.CSTime)*tick, err
}

// gone tells whether an error means that the process has ended. The clock of a process that has ended is invalid.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}
