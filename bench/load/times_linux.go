package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/tree"
)

// times is a reading of the clock and of CPU times.
type times struct {
	clock   time.Time
	proxy   time.Duration // children included
	ends    time.Duration // client and server
	machine time.Duration // of everything that is not idle
}

func (r request) readTimes() (t times, err error) {
	for _, p := range []struct {
		pid int
		sum *time.Duration
	}{{r.proxy, &t.proxy}, {r.server, &t.ends}, {os.Getpid(), &t.ends}} {
		if p.pid == 0 {
			continue
		}
		used, err := tree.Time(p.pid)
		if err != nil {
			return t, err
		}
		*p.sum += used
	}
	t.machine, err = machineTime()
	t.clock = time.Now()
	return t, err
}

func (t times) since(before times) time.Duration { return t.clock.Sub(before.clock) }

// usage gives the CPU times between two readings: for each of n in the unit, and what processes that have nothing to
// do with the benchmark took of the CPUs.
func usage(before, after times, n float64, unit time.Duration, suffix string) values {
	proxy, machine := after.proxy-before.proxy, after.machine-before.machine
	others := machine - proxy - (after.ends - before.ends)
	all := after.since(before) * time.Duration(runtime.NumCPU())
	v := values{
		"machine-" + suffix: in(unit, machine) / n,
		"load-" + suffix:    in(unit, after.ends-before.ends) / n,
		"others-%":          100 * float64(others) / float64(all),
	}
	if proxy != 0 {
		v["proxy-"+suffix] = in(unit, proxy) / n
	}
	return v
}

func in(unit, d time.Duration) float64 { return float64(d) / float64(unit) }

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
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Go's
	cpus := time.Duration(1 + strings.Count(others, "\ncpu"))
	return cpus*time.Duration(uptime.Nano()) - time.Duration(idle+iowait+steal)*tick, nil
}
