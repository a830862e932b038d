package usage

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Times is a reading of the clock and of CPU times.
type Times struct {
	Clock   time.Time
	Proxy   time.Duration // children included
	Ends    time.Duration // client and server
	Machine time.Duration // of everything that is not idle
}

// Read reads the times of a proxy's processes, if there is a proxy, and of the ends of its traffic. The clock comes last.
func Read(proxy, ends []int) (t Times, err error) {
	children, err := offspring()
	if err != nil {
		return t, err
	}
	var err1, err2 error
	t.Proxy, err1 = timeOf(children, proxy...)
	t.Ends, err2 = timeOf(children, ends...)
	if err := errors.Join(err1, err2); err != nil {
		return t, err
	}
	t.Machine, err = machineTime()
	t.Clock = time.Now()
	return t, err
}

// During reads before and after f.
func During(f func() error, proxy, ends []int) (before, after Times, err error) {
	if before, err = Read(proxy, ends); err == nil {
		err = f()
	}
	if err == nil {
		after, err = Read(proxy, ends)
	}
	return before, after, err
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
func machineTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var uptime unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &uptime); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	line, others, _ := strings.Cut(string(b), "\n")
	_, err = fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d",
		&user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal)
	if err != nil {
		return 0, fmt.Errorf("/proc/stat: %q: %w", line, err)
	}
	cpus := time.Duration(1 + strings.Count(others, "\ncpu"))
	return cpus*time.Duration(uptime.Nano()) - time.Duration(idle+iowait+steal)*tick, nil
}
