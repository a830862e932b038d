package main

import (
	"testing"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/rig"
)

// What the clients of Debian 12 print, shortened.
const (
	redisOutput = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET","89686.09","0.364","0.096","0.327","0.575","0.839","7.031"
`
	wrkOutput = `    Latency   490.30us  352.64us   6.20ms   98.33%
  Latency Distribution
     50%  500.00us
     99%    1.52ms
  102186 requests in 1.00s, 14.91MB read
Requests/sec: 102062.91
`
	pgbenchOutput = `number of transactions actually processed: 51234
latency average = 0.155 ms
tps = 51400.5 (without initial connection time)
`
	iperf3Output = `"sum_sent":	{ "bytes":	1, "bits_per_second":	8 },
		"sum_received":	{
			"start":	0,
			"bytes":	1866858496,
			"bits_per_second":	14924748988.18601,
`
)

func TestFiguresOfRealClients(t *testing.T) {
	for _, test := range []struct {
		client, output string
		want           map[string]float64
	}{
		{"redis-benchmark", redisOutput, map[string]float64{"count": 50_000, "request/s": 89686.09, "p50-us": 327, "p99-us": 839}},
		{"wrk", wrkOutput, map[string]float64{"count": 102_186, "request/s": 102062.91, "p50-us": 500, "p99-us": 1520}},
		{"pgbench", pgbenchOutput, map[string]float64{"count": 51_234, "transaction/s": 51400.5, "mean-us": 155}},
		{"iperf3", iperf3Output, map[string]float64{"count": 1.866858496, "Gbit/s": 14.92474898818601}},
	} {
		c, got := realClients[test.client], map[string]float64{}
		rig.Must(t, failure.Caught(func() {
			got["count"] = failure.Must(c.count.find([]byte(test.output)))
			for unit, f := range c.figures {
				got[unit] = failure.Must(f.find([]byte(test.output)))
			}
		}))
		equal(t, test.want, got)
	}
}

func TestFigureThatIsNotThere(t *testing.T) {
	if v, err := (figure{`tps = (\d+)`, 1}).find([]byte("no such host")); err == nil {
		t.Errorf("found %v", v)
	}
}
