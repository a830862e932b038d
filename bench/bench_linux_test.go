package main

import (
	"flag"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
	"github.com/portsplice/portsplice/bench/internal/stats"
)

var (
	portsplice = flag.String("proxy", "", "the portsplice to measure (default: built from this tree)")
	reference  = flag.String("reference", "", "the docker-proxy to compare with (default: from PATH)")
	duration   = flag.Duration("time", 800*time.Millisecond, "how long traffic is measured")
)

// BenchmarkProxies makes every proxy do every work. An iteration is a whole measurement, which decides by itself how long
// it takes: what counts are the reported metrics, medians where there is more than one iteration.
func BenchmarkProxies(b *testing.B) {
	ctx, stop := signal.NotifyContext(b.Context(), os.Interrupt, syscall.SIGTERM) // and then clean up
	defer stop()
	b.Setenv(benchtest.AsProgram, "1") // of the ends of the traffic, which are this program
	programs, err := Build(ctx, Options{Portsplice: *portsplice, Reference: *reference})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := programs.Close(); err != nil {
			b.Error(err)
		}
	}()
	for _, work := range programs.Works {
		for _, proxy := range programs.Proxies {
			if !work.Fits(proxy) {
				continue
			}
			b.Run(subBenchmark(proxy.Name, work.Name), func(b *testing.B) {
				if why := proxy.Absence(work); why != "" {
					b.Skip(why) // a row that says so
				}
				measured := map[string][]float64{}
				for b.Loop() {
					values, err := programs.Measure(ctx, work, proxy, *duration)
					if err != nil {
						b.Fatal(err)
					}
					for unit, v := range values {
						measured[unit] = append(measured[unit], v)
					}
				}
				b.ReportMetric(0, "ns/op") // it says nothing: leave it out
				for _, unit := range slices.Sorted(maps.Keys(measured)) {
					b.ReportMetric(stats.Median(measured[unit]), unit)
				}
			})
		}
	}
}
