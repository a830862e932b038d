package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestServeMetrics: metrics are served as text and, to who asks for it, in the form that native histograms need, and the
// server ends when it is told to.
func TestServeMetrics(t *testing.T) {
	l := rig.Listen(t, rig.Loopback)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "portsplice_up"})
	go func() { ended <- serveMetrics(ctx, l, gauge, log.New(io.Discard, "", 0)) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path, accept string) (status int, kind, body string) {
		request, err := http.NewRequest(http.MethodGet, "http://"+l.Addr().String()+path, nil)
		rig.Must(t, err)
		request.Header.Set("Accept", accept)
		answer, err := client.Do(request)
		rig.Must(t, err)
		b, err := io.ReadAll(answer.Body)
		rig.Must(t, err)
		rig.Must(t, answer.Body.Close())
		return answer.StatusCode, answer.Header.Get("Content-Type"), string(b)
	}
	if status, kind, body := get("/metrics", "text/plain"); status != http.StatusOK || !strings.HasPrefix(kind, "text/plain") ||
		!strings.Contains(body, "\nportsplice_up 0\n") {
		t.Errorf("%d, %s, %s", status, kind, body)
	}
	const protobuf = "application/vnd.google.protobuf"
	if _, kind, _ := get("/metrics", protobuf+";proto=io.prometheus.client.MetricFamily;encoding=delimited"); !strings.HasPrefix(kind, protobuf) {
		t.Errorf("the answer is %s", kind)
	}
	if status, _, body := get("/", "text/html"); status != http.StatusOK || !strings.Contains(body, `href="/metrics"`) {
		t.Errorf("%d, %s", status, body)
	}
	if status, _, _ := get("/nothing", ""); status != http.StatusNotFound {
		t.Errorf("%d for what there is not", status)
	}
	cancel()
	rig.Must(t, <-ended)
}
