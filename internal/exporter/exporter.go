// Package exporter gives Prometheus what the workers of a host count.
//
// Workers are asked at each scrape, so what a scrape does not see costs nothing. A port's metrics have the labels protocol,
// host_ip, host_port, container_ip and container_port, which are bounded by what is published. For a while two ports may
// have the same: dockerd has begun anew, and connections of the port that it had before live on. They are summed up then,
// and what the older one has counted stays in the sum when it ends, so that no counter goes back while its port is served.
package exporter

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

// Collector is a prometheus.Collector of all ports and workers of the host.
type Collector struct {
	version string
	ask     func() ([]workers.Answer[worker.List], error)
	failed  func(error) // is told why a scrape is not complete

	mu     sync.Mutex // one scrape at a time
	series map[labels]*series
}

// New makes a collector, of the program's version. What is wrong at a scrape is told to failed.
func New(version string, failed func(error)) *Collector {
	ask := func() ([]workers.Answer[worker.List], error) { return workers.Ask[worker.List]("metrics") }
	return &Collector{version: version, ask: ask, failed: failed, series: map[labels]*series{}}
}

// labels are the values of portLabels.
type labels [5]string

func labelsOf(p worker.Port) labels {
	frontend, _ := netip.ParseAddrPort(p.Frontend) // a worker has written them
	backend, _ := netip.ParseAddrPort(p.Backend)
	return labels{backend.Addr().String(), strconv.Itoa(int(backend.Port())),
		frontend.Addr().String(), strconv.Itoa(int(frontend.Port())), p.Protocol}
}

// series are the ports with the same labels: mostly one.
type series struct {
	ended worker.Port         // the sum of those that were there and are no more
	ports map[key]worker.Port // that there are, as they were seen last
}

// key tells ports with the same labels apart.
type key struct {
	namespace    string
	worker, shim int
	since        time.Time
}

// Describe tells all that Collect may give.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range described {
		to <- desc
	}
}

// Collect asks the workers.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answers, err := c.ask()
	all := 1.0
	if err != nil {
		all = 0
		c.failed(err)
	}
	to <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, all)
	to <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, c.version)
	to <- prometheus.MustNewConstMetric(workerCount, prometheus.GaugeValue, float64(len(answers)))
	seen := map[labels]map[key]worker.Port{}
	told := map[string]bool{} // workers, by process: those of other PID namespaces may have the same
	for _, a := range answers {
		if id := strconv.Itoa(a.Told.Worker); !told[id] {
			told[id] = true
			to <- prometheus.MustNewConstMetric(workerInfo, prometheus.GaugeValue, 1, id, a.Told.Program)
			to <- prometheus.MustNewConstMetric(workerPorts, prometheus.GaugeValue, float64(len(a.Told.Ports)), id)
			collectProcess(to, a.Told.Worker, a.Namespace)
		}
		for _, p := range a.Told.Ports {
			if p.Protocol == "" { // anybody may say to be a worker
				continue
			}
			l := labelsOf(p)
			if seen[l] == nil {
				seen[l] = map[key]worker.Port{}
			}
			seen[l][key{a.Namespace, a.Told.Worker, p.Shim, p.Since}] = p
		}
	}
	if err == nil { // or a port may only not have been told of
		c.forget(seen)
	}
	for _, l := range slices.SortedFunc(maps.Keys(seen), func(a, b labels) int { return slices.Compare(a[:], b[:]) }) {
		c.take(l, seen[l]).collect(to, l, c.failed) // as the registry sorts them again, which is quick then
	}
}

// forget drops the series that no port has any longer.
func (c *Collector) forget(seen map[labels]map[key]worker.Port) {
	maps.DeleteFunc(c.series, func(l labels, _ *series) bool { return seen[l] == nil })
}

// take has a series be of these ports.
func (c *Collector) take(l labels, now map[key]worker.Port) *series {
	s := c.series[l]
	if s == nil {
		s = &series{}
		c.series[l] = s
	}
	for k, p := range s.ports {
		if _, lives := now[k]; !lives {
			delete(p.Counters, "active") // are gauges
			delete(p.Counters, "flows")
			s.ended = plus(s.ended, p)
		}
	}
	s.ports = now
	return s
}

// collect gives the sums.
func (s *series) collect(to chan<- prometheus.Metric, l labels, failed func(error)) {
	sum := s.ended
	since := time.Time{}
	for _, p := range s.ports {
		sum = plus(sum, p)
		if since.IsZero() || p.Since.Before(since) {
			since = p.Since
		}
	}
	pairs, protocol := prometheus.MakeLabelPairs(portStart, l[:]), l[len(l)-1]
	for _, m := range ofPorts {
		if !strings.Contains(m.protocols, protocol[:1]) {
			continue
		}
		with := pairs
		if m.reason != nil {
			with = append(pairs[:len(pairs):len(pairs)], m.reason)
		}
		to <- &sample{m.desc, m.kind, float64(m.value(sum)), with}
	}
	to <- &sample{portStart, prometheus.GaugeValue, seconds(since), pairs}
	for name, h := range sum.Histograms {
		desc := histograms[name]
		if desc == nil { // of a worker that is newer than this
			continue
		}
		m, err := native(desc, h, l[:])
		if err != nil {
			failed(err)
			continue
		}
		to <- m
	}
}

// sample is a prometheus.Metric of a port. All of a port share their labels, which takes half the time of constant metrics.
type sample struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	value  float64
	labels []*dto.LabelPair
}

// Desc is for the registry.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write is for the registry, which changes none of it.
func (s *sample) Write(to *dto.Metric) error {
	to.Label = s.labels
	if s.kind == prometheus.CounterValue {
		to.Counter = &dto.Counter{Value: &s.value}
	} else {
		to.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// plus sums up what two ports have counted. Neither is changed.
func plus(a, b worker.Port) worker.Port {
	sum := worker.Port{Protocol: b.Protocol, Counters: maps.Clone(b.Counters), Histograms: maps.Clone(b.Histograms)}
	if sum.Counters == nil {
		sum.Counters = map[string]uint64{}
	}
	for name, n := range a.Counters {
		sum.Counters[name] += n
	}
	for name, h := range a.Histograms {
		if sum.Histograms == nil {
			sum.Histograms = map[string]worker.Histogram{}
		}
		other, both := sum.Histograms[name]
		switch {
		case !both:
			sum.Histograms[name] = h
		case other.Schema == h.Schema: // of builds that differ in it, the newer port's stays
			other.Zero += h.Zero
			other.Count += h.Count
			other.Sum += h.Sum
			other.Buckets = maps.Clone(other.Buckets)
			if other.Buckets == nil {
				other.Buckets = map[int]uint64{}
			}
			for i, n := range h.Buckets {
				other.Buckets[i] += n
			}
			sum.Histograms[name] = other
		}
	}
	return sum
}

// native makes a native histogram. Its count is that of its buckets, which a loop may have counted in meanwhile.
func native(desc *prometheus.Desc, h worker.Histogram, labels []string) (prometheus.Metric, error) {
	count, buckets := h.Zero, make(map[int]int64, len(h.Buckets))
	for i, n := range h.Buckets {
		buckets[i] = int64(n)
		count += n
	}
	return prometheus.NewConstNativeHistogram(desc, count, h.Sum, buckets, nil, h.Zero, int32(h.Schema), zeroThreshold,
		time.Time{}, labels...)
}
