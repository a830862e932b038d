package exporter

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

type answers = []workers.Answer[worker.List]

// scraped is a collector that is answered what a test says.
type scraped struct {
	*Collector
	answers answers
	err     error
	failed  []error
}

func newScraped(ports ...worker.Port) *scraped {
	s := &scraped{}
	s.Collector = New("1.2.3", func(err error) { s.failed = append(s.failed, err) })
	s.ask = func() (answers, error) { return s.answers, s.err }
	s.has(ports...)
	return s
}

// has are the ports of the one worker from now on. Its process is none: it is not asked of /proc.
func (s *scraped) has(ports ...worker.Port) {
	s.answers = answers{{Told: worker.List{Worker: 1 << 30, Program: "1.2.2", Ports: ports}}}
}

func port(protocol string, shim int, counters map[string]uint64) worker.Port {
	return worker.Port{Protocol: protocol, Frontend: "127.0.0.1:80", Backend: "[fd00::2]:8080", Shim: shim,
		Since: time.Unix(1_700_000_000, 0), Counters: maps.Clone(counters)}
}

// The labels of port.
const tcpLabels = `container_ip="fd00::2",container_port="8080",host_ip="127.0.0.1",host_port="80",protocol="tcp"`

// TestNoProtocol: anybody on the host may say to be a worker, and say anything.
func TestNoProtocol(t *testing.T) {
	s := newScraped(worker.Port{}, port("tcp", 1, map[string]uint64{"active": 2}))
	want := "# HELP portsplice_connections Connections of clients that there are now.\n# TYPE portsplice_connections gauge\n" +
		"portsplice_connections{" + tcpLabels + "} 2\n"
	rig.Check(t, testutil.CollectAndCompare(s, strings.NewReader(want), "portsplice_connections"))
}

func TestMetrics(t *testing.T) {
	s := newScraped(
		port("tcp", 1, map[string]uint64{"active": 2, "accepted": 10, "bytes-in": 100, "bytes-out": 200, "spliced": 150,
			"dial-errors": 6, "dial-refused": 3, "dial-timeouts": 2, "accept-errors": 7, "aborted": 8, "bypassed": 9,
			"source-refused": 10}),
		port("udp", 2, map[string]uint64{"flows": 1, "flows-total": 5, "dropped": 5, "too-large": 2, "kernel-dropped": 4,
			"expired": 3, "bytes-in": 1, "bytes-out": 2, "datagrams-in": 3, "datagrams-out": 4, "refused": 6,
			"source-refused": 2}),
		port("sctp", 3, map[string]uint64{"active": 1, "accepted": 1, "undelivered": 1, "messages-in": 2, "messages-out": 3}),
	)
	const want = `
# HELP portsplice_backend_connect_failures_total Connections to the backend that failed; their clients were reset.
# TYPE portsplice_backend_connect_failures_total counter
portsplice_backend_connect_failures_total{TCP,reason="exhausted"} 0
portsplice_backend_connect_failures_total{TCP,reason="other"} 1
portsplice_backend_connect_failures_total{TCP,reason="refused"} 3
portsplice_backend_connect_failures_total{TCP,reason="timeout"} 2
portsplice_backend_connect_failures_total{TCP,reason="unreachable"} 0
portsplice_backend_connect_failures_total{SCTP,reason="exhausted"} 0
portsplice_backend_connect_failures_total{SCTP,reason="other"} 0
portsplice_backend_connect_failures_total{SCTP,reason="refused"} 0
portsplice_backend_connect_failures_total{SCTP,reason="timeout"} 0
portsplice_backend_connect_failures_total{SCTP,reason="unreachable"} 0
# HELP portsplice_build_info The version of this exporter.
# TYPE portsplice_build_info gauge
portsplice_build_info{version="1.2.3"} 1
# HELP portsplice_bypassed_connections_total Connections of local clients that went to the container without the proxy.
# TYPE portsplice_bypassed_connections_total counter
portsplice_bypassed_connections_total{TCP} 9
# HELP portsplice_connections Connections of clients that there are now.
# TYPE portsplice_connections gauge
portsplice_connections{TCP} 2
portsplice_connections{SCTP} 1
# HELP portsplice_received_bytes_total Bytes from clients that have reached the backend.
# TYPE portsplice_received_bytes_total counter
portsplice_received_bytes_total{TCP} 100
portsplice_received_bytes_total{UDP} 1
portsplice_received_bytes_total{SCTP} 0
# HELP portsplice_sources_refused_total Clients, of UDP their datagrams, whose address the backend could not be shown.
# TYPE portsplice_sources_refused_total counter
portsplice_sources_refused_total{TCP} 10
portsplice_sources_refused_total{UDP} 2
# HELP portsplice_spliced_bytes_total Bytes, of both ways, that were moved by splice(2).
# TYPE portsplice_spliced_bytes_total counter
portsplice_spliced_bytes_total{TCP} 150
# HELP portsplice_port_start_time_seconds Since when the port is served, in seconds since 1970.
# TYPE portsplice_port_start_time_seconds gauge
portsplice_port_start_time_seconds{TCP} 1.7e+09
portsplice_port_start_time_seconds{UDP} 1.7e+09
portsplice_port_start_time_seconds{SCTP} 1.7e+09
# HELP portsplice_sctp_messages_dropped_total Messages that came too late for the side that they were for.
# TYPE portsplice_sctp_messages_dropped_total counter
portsplice_sctp_messages_dropped_total{SCTP} 1
# HELP portsplice_udp_datagrams_dropped_total Datagrams that were not passed on.
# TYPE portsplice_udp_datagrams_dropped_total counter
portsplice_udp_datagrams_dropped_total{UDP,reason="other"} 3
portsplice_udp_datagrams_dropped_total{UDP,reason="socket_full"} 4
portsplice_udp_datagrams_dropped_total{UDP,reason="too_large"} 2
# HELP portsplice_udp_flows UDP clients in the table now.
# TYPE portsplice_udp_flows gauge
portsplice_udp_flows{UDP} 1
# HELP portsplice_up Whether every worker that there is has answered.
# TYPE portsplice_up gauge
portsplice_up 1
# HELP portsplice_worker_info The version of a worker, which may be older than that of the program.
# TYPE portsplice_worker_info gauge
portsplice_worker_info{version="1.2.2",worker="1073741824"} 1
# HELP portsplice_worker_ports Ports that a worker serves.
# TYPE portsplice_worker_ports gauge
portsplice_worker_ports{worker="1073741824"} 3
# HELP portsplice_workers Workers that have answered.
# TYPE portsplice_workers gauge
portsplice_workers 1
`
	of := func(protocol string) string { return "{" + strings.ReplaceAll(tcpLabels, "tcp", protocol) }
	text := strings.NewReplacer("{TCP", of("tcp"), "{UDP", of("udp"), "{SCTP", of("sctp")).Replace(want)
	var names []string
	for line := range strings.Lines(want) {
		if rest, is := strings.CutPrefix(line, "# HELP "); is {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	if err := testutil.CollectAndCompare(s, strings.NewReader(text), names...); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(s)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// sum gives a metric of the port after another scrape; ok is false if it is not there.
func (s *scraped) sum(t *testing.T, name string) (value float64, ok bool) {
	t.Helper()
	m := s.metric(t, name)
	if m == nil {
		return 0, false
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
}

func (s *scraped) metric(t *testing.T, name string) *dto.Metric {
	t.Helper()
	registry := prometheus.NewRegistry()
	rig.Must(t, registry.Register(s))
	families, err := registry.Gather()
	rig.Must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0]
		}
	}
	return nil
}

// TestPortsWithTheSameLabels: a port that drains beside the one that has taken its place is in the sum, and what it has
// counted stays there when it ends, but not what it had open. When both have gone nothing of them is left.
func TestPortsWithTheSameLabels(t *testing.T) {
	const total, open = "portsplice_connections_total", "portsplice_connections"
	older := func() worker.Port { return port("tcp", 1, map[string]uint64{"accepted": 100, "active": 3}) }
	newer := func(accepted uint64) worker.Port {
		return port("tcp", 2, map[string]uint64{"accepted": accepted, "active": 1})
	}
	s := newScraped()
	for _, step := range []struct {
		name        string
		ports       []worker.Port
		silent      error // another worker
		total, open float64
		gone        bool
	}{
		{"one", []worker.Port{older()}, nil, 100, 3, false},
		{"both", []worker.Port{older(), newer(5)}, nil, 105, 4, false},
		{"the newer", []worker.Port{newer(6)}, nil, 106, 1, false},
		{"the newer again", []worker.Port{newer(7)}, nil, 107, 1, false},
		{"told by nobody", nil, errors.New("no answer"), 0, 0, true},
		{"told again", []worker.Port{newer(8)}, nil, 108, 1, false},
		{"none", nil, nil, 0, 0, true},
		{"anew", []worker.Port{newer(1)}, nil, 1, 1, false},
	} {
		s.err = step.silent
		for _, metric := range []string{total, open} { // each asks once
			s.has(step.ports...)
			for i := range step.ports { // what is exported is not to be changed
				step.ports[i].Counters = maps.Clone(step.ports[i].Counters)
			}
			want := map[string]float64{total: step.total, open: step.open}[metric]
			if got, ok := s.sum(t, metric); ok == step.gone || got != want {
				t.Errorf("%s: %s is %v, %v; want %v", step.name, metric, got, ok, want)
			}
		}
	}
}

// TestSilentWorker: a scrape without one of the workers says so.
func TestSilentWorker(t *testing.T) {
	s := newScraped(port("tcp", 1, map[string]uint64{"accepted": 1}))
	s.err = errors.New("no answer")
	if up, _ := s.sum(t, "portsplice_up"); up != 0 || len(s.failed) != 1 || !errors.Is(s.failed[0], s.err) {
		t.Errorf("up is %v, and told was %v", up, s.failed)
	}
	if n, _ := s.sum(t, "portsplice_connections_total"); n != 1 {
		t.Errorf("the other's port has %v connections", n)
	}
}

// TestHistograms: what a worker counts becomes a native histogram of the same buckets; those of two ports are summed up;
// one that is amiss is left out and told of.
func TestHistograms(t *testing.T) {
	const name = "portsplice_connection_duration_seconds"
	with := func(shim int, h worker.Histogram) worker.Port {
		p := port("tcp", shim, nil)
		p.Histograms = map[string]worker.Histogram{"connection-duration": h, "of a newer worker": h}
		return p
	}
	one := worker.Histogram{Schema: 2, Zero: 1, Count: 7, Sum: 1.5, Buckets: map[int]uint64{-5: 3, -4: 1, 8: 2}}
	s := newScraped(with(1, one))
	check := func(count, zero uint64, sum float64, want map[int]int64) {
		t.Helper()
		h := s.metric(t, name).GetHistogram()
		got := map[int]int64{}
		index, n, deltas := 0, int64(0), h.PositiveDelta
		for _, span := range h.PositiveSpan {
			index += int(span.GetOffset())
			for range span.GetLength() {
				n, deltas = n+deltas[0], deltas[1:]
				if n > 0 {
					got[index] = n
				}
				index++
			}
		}
		if h.GetSchema() != 2 || h.GetSampleCount() != count || h.GetZeroCount() != zero || h.GetSampleSum() != sum ||
			h.GetZeroThreshold() != math.Pow(2, -20) {
			t.Errorf("the histogram is %v", h)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("buckets (-want +got):\n%s", diff)
		}
	}
	check(7, 1, 1.5, map[int]int64{-5: 3, -4: 1, 8: 2})
	two := worker.Histogram{Schema: 2, Count: 1, Sum: 4, Buckets: map[int]uint64{8: 1}}
	s.has(with(1, one), with(2, two))
	check(8, 1, 5.5, map[int]int64{-5: 3, -4: 1, 8: 3})
	s.has(with(2, two))
	check(8, 1, 5.5, map[int]int64{-5: 3, -4: 1, 8: 3})
	if len(s.failed) > 0 {
		t.Errorf("told was %v", s.failed)
	}

	s = newScraped(with(1, worker.Histogram{Schema: 99}))
	if s.metric(t, name) != nil || len(s.failed) == 0 {
		t.Errorf("a histogram that is none was given; told was %v", s.failed)
	}
	if _, ok := s.sum(t, "portsplice_connections_total"); !ok {
		t.Error("and the others were not")
	}
}

// TestLabelsAreOfPortsAlone: what is exported has no label whose values others than the host's owner choose.
func TestLabelsAreOfPortsAlone(t *testing.T) {
	known := append(slices.Clone(portLabels), "reason", "version", "worker")
	for name, desc := range described {
		_, list, _ := strings.Cut(desc.String(), "variableLabels: {")
		for label := range strings.SplitSeq(strings.TrimSuffix(list, "}}"), ",") {
			if label != "" && !slices.Contains(known, label) {
				t.Errorf("%s has the label %q", name, label)
			}
		}
	}
}
