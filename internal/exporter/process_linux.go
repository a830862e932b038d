package exporter

import (
	"fmt"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"
)

// collectProcess tells of a worker's process, as far as this user may know.
func collectProcess(to chan<- prometheus.Metric, pid int, namespace string) {
	if namespace == "" {
		namespace, _ = os.Readlink("/proc/thread-self/ns/net") // an empty one is none's
	}
	// A worker knows its own number, which in another PID namespace is another process's here.
	if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || theirs != namespace {
		return
	}
	p, err := procfs.NewProc(pid)
	if err != nil { // it has ended
		return
	}
	id := strconv.Itoa(pid)
	give := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, err error) {
		if err == nil {
			to <- prometheus.MustNewConstMetric(desc, kind, value, id)
		}
	}
	if stat, err := p.Stat(); err == nil {
		give(workerMemory, prometheus.GaugeValue, float64(stat.ResidentMemory()), nil)
		give(workerCPU, prometheus.CounterValue, stat.CPUTime(), nil)
		began, err := stat.StartTime()
		give(workerStart, prometheus.GaugeValue, began, err)
	}
	open, err := p.FileDescriptorsLen()
	give(workerFDs, prometheus.GaugeValue, float64(open), err)
	limits, err := p.Limits()
	give(workerMaxFDs, prometheus.GaugeValue, float64(limits.OpenFiles), err)
}
