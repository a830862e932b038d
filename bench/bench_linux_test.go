package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/internal/rig"
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
	rig.Must(b, withPrograms(ctx, Options{Portsplice: *portsplice, Reference: *reference}, func(p *Programs) {
		for _, work := range p.Works {
			for _, proxy := range p.Proxies {
				if work.Fits(proxy) {
					b.Run(subBenchmark(proxy.Name, work.Name), func(b *testing.B) { benchmark(ctx, b, p, work, proxy) })
				}
			}
		}
	}))
}

func benchmark(ctx context.Context, b *testing.B, p *Programs, work Work, proxy Proxy) {
	if why := proxy.Absence(work); why != "" {
		b.Skip(why) // a row that says so
	}
	measured := map[string][]float64{}
	for b.Loop() {
		values, err := p.Measure(ctx, work, proxy, *duration)
		rig.Must(b, err)
		for unit, v := range values {
			measured[unit] = append(measured[unit], v)
		}
	}
	b.ReportMetric(0, "ns/op") // it says nothing: leave it out
	for unit, values := range measured {
		b.ReportMetric(stats.Median(values), unit)
	}
}
