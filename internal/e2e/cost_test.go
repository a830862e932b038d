//go:build e2e && linux

package e2e

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkPublish publishes many ports of one container, by docker-proxy and by the program under test: what a port costs
// the whole machine, with the worker where there is one, and how much longer the container takes to start and to
// stop than one without ports. A port that is published on every address is one process for IPv4 and one for IPv6.
func BenchmarkPublish(b *testing.B) {
	for _, work := range []struct {
		name, protocol, address string
		count                   int
	}{
		{"tcp/ports=200", "tcp", "", 200},
		{"udp/ports=200", "udp", "", 200},
		{"tcp-one-address/ports=1000", "tcp", gateway, 1000},
	} {
		var ports []port
		for number := 2000; len(ports) < work.count; number++ {
			ports = append(ports, port{work.protocol, number, number, work.address})
		}
		for _, proxy := range []struct{ name, path string }{{"docker-proxy", *referenceFlag}, {"ours", program}} {
			b.Run("work="+work.name+"/proxy="+proxy.name, func(b *testing.B) {
				ours := program
				defer func() { program = ours }()
				program = proxy.path
				for range b.N {
					publish(b, ports)
				}
			})
		}
	}
}

func publish(b *testing.B, ports []port) {
	d := startDaemon(b)
	bare, full := d.create(b, nil), d.create(b, nil, ports...)
	bare.start(b) // the first of a daemon is slower
	bare.stop(b)
	start, stop, memory := span(bare, b)
	startAll, stopAll, memoryAll := span(full, b)
	n := float64(len(ports))
	b.ReportMetric(0, "ns/op") // mostly the daemon's
	b.ReportMetric((memoryAll-memory)/n, "machine-kB/port")
	b.ReportMetric((startAll-start).Seconds()*1e3/n, "start-ms/port")
	b.ReportMetric((stopAll-stop).Seconds()*1e3/n, "stop-ms/port")
}

// span starts and stops a container, and gives how long each took and what the machine held meanwhile, in kB.
func span(c container, b *testing.B) (start, stop time.Duration, memory float64) {
	began := time.Now()
	c.start(b)
	start = time.Since(began)
	c.awaitServer(b)
	memory = settledMemory(b)
	began = time.Now()
	c.stop(b)
	return start, time.Since(began), memory
}

// settledMemory waits until the machine's memory is still, for a few seconds at the most, and reads it.
func settledMemory(b *testing.B) float64 {
	const still = 64 // kB
	last := machineMemory(b)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range 15 {
		<-tick.C
		now := machineMemory(b)
		if math.Abs(now-last) <= still {
			return now
		}
		last = now
	}
	return last
}

// machineMemory is what all processes hold, and what the kernel holds for them, in kB, without files and their cache.
func machineMemory(b *testing.B) (sum float64) {
	all, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		switch f := strings.Fields(line); f[0] {
		case "AnonPages:", "KernelStack:", "PageTables:", "SUnreclaim:":
			kB, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatalf("%q: %v", line, err)
			}
			sum += kB
		}
	}
	return sum
}
