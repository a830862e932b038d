package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// memory is what processes hold, added up, and what the kernel holds for everyone. Sizes are in kB.
type memory struct {
	pss, private         float64
	descriptors, threads float64
	kernel, machine      float64
}

// readMemory waits until the kernel's memory is still, and reads. What the processes have started is theirs.
func readMemory(ctx context.Context, pids ...int) (m memory, err error) {
	if m.kernel, err = stillKernelMemory(ctx); err != nil {
		return m, err
	}
	if m.machine, err = machineMemory(); err != nil {
		return m, err
	}
	for _, pid := range pids {
		all, err := usage.Tree(pid)
		if err != nil {
			return m, err
		}
		for _, p := range all {
			if err := m.addProcess(filepath.Join("/proc", strconv.Itoa(p))); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

func (m *memory) addProcess(proc string) error {
	rollup, err := kilobytes(proc + "/smaps_rollup")
	if err != nil {
		return err
	}
	m.pss += rollup["Pss"]
	m.private += rollup["Private_Clean"] + rollup["Private_Dirty"]
	descriptors, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return err
	}
	m.descriptors += float64(len(descriptors))
	threads, err := os.ReadDir(proc + "/task")
	if err != nil {
		return err
	}
	m.threads += float64(len(threads))
	return nil
}

// stillKernelMemory waits for what is on its way: sockets and namespaces are freed some time after they are closed,
// and a program is not idle at once. On a machine that is never still it waits for no more than a second.
func stillKernelMemory(ctx context.Context) (float64, error) {
	const (
		interval = 100 * time.Millisecond
		readings = 10
		still    = 64 // kB: a slab page for each of the common caches
	)
	poll := time.NewTicker(interval)
	defer poll.Stop()
	last := math.Inf(1)
	for range readings {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		now, err := kernelMemory()
		if err != nil {
			return 0, err
		}
		moved := math.Abs(now - last)
		last = now
		if moved <= still {
			break
		}
	}
	return last, nil
}

// kernelMemory is what sockets, pipes, descriptors, processes and their pages take in the kernel. It is read rather
// than MemAvailable, in which the page cache and the memory of all processes move by much more.
func kernelMemory() (float64, error) {
	m, err := kilobytes("/proc/meminfo")
	return kernelPart(m), err
}

func kernelPart(meminfo map[string]float64) float64 {
	return meminfo["Slab"] + meminfo["KernelStack"] + meminfo["PageTables"] + meminfo["Percpu"]
}

// machineMemory is what all processes and the kernel hold, without files and their cache. What is merely not free says
// less: pages of processes that have ended are freed long after.
func machineMemory() (float64, error) {
	m, err := kilobytes("/proc/meminfo")
	return m["AnonPages"] + kernelPart(m), err
}

// kilobytes reads a file of lines such as "Pss:   123 kB".
func kilobytes(path string) (map[string]float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sizes := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		name, size, found := strings.Cut(lines.Text(), ":")
		size, isSize := strings.CutSuffix(size, " kB")
		if !found || !isSize {
			continue // the first line of smaps_rollup, and counters
		}
		if sizes[name], err = strconv.ParseFloat(strings.TrimSpace(size), 64); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
	}
	return sizes, nil
}
