package main

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/usage"
)

// memory is what processes hold, added up, and what the kernel holds for everyone, by units without what they are
// divided by. Sizes are in kB.
type memory map[string]float64

// each is the growth since an earlier reading for each of what the work has many of, in those of its units that were
// read.
func (m memory) each(before memory, w Work) Values {
	v := Values{}
	for _, u := range w.Units {
		what, _, _ := strings.Cut(u.Name, "/")
		if now, read := m[what]; read {
			v[u.Name] = (now - before[what]) / float64(w.count)
		}
	}
	return v
}

// readMemory waits until the kernel's memory is still, and reads. What the processes have started is theirs.
func readMemory(ctx context.Context, pids ...int) memory {
	m := memory{}
	m.awaitStillness(ctx)
	for _, p := range usage.Tree(pids...) {
		m.addProcess(p)
	}
	return m
}

func (m memory) addProcess(pid int) {
	p := failure.Must(procfs.NewProc(pid))
	rollup := failure.Must(p.ProcSMapsRollup()) // bytes
	m["pss-kB"] += float64(rollup.Pss) / 1024
	m["private-kB"] += float64(rollup.PrivateClean+rollup.PrivateDirty) / 1024
	m["fds"] += float64(failure.Must(p.FileDescriptorsLen()))
	m["threads"] += float64(failure.Must(p.Stat()).NumThreads)
}

// awaitStillness waits for what is on its way: sockets and namespaces are freed some time after they are closed, and a
// program is not idle at once. On a machine that is never still it waits for no more than a second.
func (m memory) awaitStillness(ctx context.Context) {
	const (
		interval = 100 * time.Millisecond
		readings = 10
		still    = 64 // kB: a slab page for each of the common caches
	)
	tick := time.Tick(interval)
	for i := range readings {
		select {
		case <-tick:
		case <-ctx.Done():
			failure.Check(ctx.Err())
		}
		last := m["kernel-kB"]
		m.readMachine()
		if i > 0 && math.Abs(m["kernel-kB"]-last) <= still {
			break
		}
	}
}

// readMachine reads what sockets, pipes, descriptors, processes and their pages take in the kernel, and what that and
// all processes hold without files and their cache. MemAvailable moves by much more, with the page cache, and what is
// merely not free says less: pages of processes that have ended are freed long after.
func (m memory) readMachine() {
	all := failure.Must(failure.Must(procfs.NewDefaultFS()).Meminfo())
	sum := func(sizes ...*uint64) (kB float64) {
		for _, s := range sizes {
			if s != nil { // or the kernel does not tell
				kB += float64(*s)
			}
		}
		return kB
	}
	m["kernel-kB"] = sum(all.Slab, all.KernelStack, all.PageTables, all.Percpu)
	m["machine-kB"] = m["kernel-kB"] + sum(all.AnonPages)
}
