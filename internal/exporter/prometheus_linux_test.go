//go:build prometheus

package exporter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
)

// These tests run the built programs, and Debian's prometheus and promtool, as make test-prometheus does.
var programs = flag.String("programs", "", "where portsplice, its shim and portsplicectl are")

const contrib = "../../contrib/"

// host is a network namespace with published ports and an exporter.
type host struct {
	*netlab.Namespace
	metrics string // its URL
}

func newHost(t testing.TB) *host {
	t.Helper()
	if *programs == "" {
		t.Fatal("-programs is missing: make test-prometheus builds them and runs these tests with it")
	}
	return &host{Namespace: rig.Namespace(t)}
}

// start starts a program inside, which is ended by SIGINT when the test does, and gives what it writes to standard error.
func (h *host) start(t testing.TB, status *os.File, program string, args ...string) *bufio.Reader {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PORTSPLICE_WORKER=require")
	if status != nil {
		cmd.ExtraFiles = []*os.File{status}
	}
	read, write, err := os.Pipe()
	rig.Must(t, err)
	cmd.Stderr = write
	rig.Must(t, h.Do(cmd.Start))
	rig.Must(t, write.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		_ = cmd.Wait()
		_ = read.Close()
	})
	return bufio.NewReader(read)
}

// publish has a port served, as dockerd does.
func (h *host) publish(t testing.TB, protocol string, frontend, backend netip.AddrPort) {
	t.Helper()
	answer, report, err := os.Pipe()
	rig.Must(t, err)
	h.start(t, report, filepath.Join(*programs, "portsplice-shim"), "-proto", protocol,
		"-host-ip", frontend.Addr().String(), "-host-port", fmt.Sprint(frontend.Port()),
		"-container-ip", backend.Addr().String(), "-container-port", fmt.Sprint(backend.Port()))
	rig.Must(t, report.Close())
	b, err := io.ReadAll(answer)
	rig.Must(t, err)
	rig.Must(t, answer.Close())
	if string(b) != "0\n" {
		t.Fatalf("the shim answers %q", b)
	}
}

// export starts the exporter.
func (h *host) export(t testing.TB) {
	t.Helper()
	log := h.start(t, nil, filepath.Join(*programs, "portsplicectl"), "exporter", "--listen", "127.0.0.1:0")
	line, err := log.ReadString('\n')
	rig.Must(t, err)
	h.metrics = regexp.MustCompile(`http://\S+`).FindString(line)
}

// get gives what a URL inside has.
func (h *host) get(t testing.TB, url string) []byte {
	t.Helper()
	b, err := h.fetch(url)
	rig.Must(t, err)
	return b
}

func (h *host) fetch(url string) (b []byte, err error) {
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = h.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: rig.Timeout}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // it was read only
	if b, err = io.ReadAll(answer.Body); err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, b)
	}
	return b, err
}

// promtool runs it, and fails the test if it finds anything.
func promtool(t *testing.T, input []byte, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil || len(input) > 0 && len(out) > 0 {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRules(t *testing.T) {
	promtool(t, nil, "check", "rules", contrib+"prometheus/portsplice.rules.yml")
	promtool(t, nil, "test", "rules", contrib+"prometheus/portsplice.rules.test.yml")
}

// frontend is free in a namespace of its own.
func frontend(port int) netip.AddrPort { return netip.AddrPortFrom(rig.Loopback, uint16(port)) }

// traffic has a host with a port of each kind: tcp and udp that echo, and one behind which nobody listens.
func traffic(t *testing.T, h *host) (once func()) {
	t.Helper()
	var echo *net.TCPListener
	var datagrams *net.UDPConn
	rig.Must(t, h.Do(func() (err error) {
		echo = rig.Listen(t, rig.Loopback)
		datagrams, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 1<<16); ; {
			n, from, err := datagrams.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteToUDPAddrPort(b[:n], from) // the client notices
		}
	}()
	t.Cleanup(func() {
		rig.Must(t, datagrams.Close())
		<-ended
	})
	h.publish(t, "tcp", frontend(80), rig.Serve(t, echo, rig.Echo))
	h.publish(t, "tcp", frontend(81), frontend(9)) // where nobody listens
	h.publish(t, "udp", frontend(53), datagrams.LocalAddr().(*net.UDPAddr).AddrPort())
	return func() {
		for port, network := range map[int]string{80: "tcp", 53: "udp"} {
			rig.Must(t, h.Do(func() error {
				rig.Exchange(t, rig.Dial(t, network, frontend(port)), []byte("hello"))
				return nil
			}))
		}
		rig.Must(t, h.Do(func() error {
			rig.WantReset(t, frontend(81))
			return nil
		}))
	}
}

// standIn answers as a worker does that has an SCTP port, which the kernel may not have, and durations to tell.
func standIn(t *testing.T, h *host) {
	t.Helper()
	var l *net.UnixListener
	rig.Must(t, h.Do(func() (err error) {
		l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: "@portsplice/1/0/stand-in", Net: "unixpacket"})
		return err
	}))
	began, ended := time.Now(), make(chan struct{})
	go func() {
		defer close(ended)
		for n := uint64(1); ; n++ {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			durations := worker.Histogram{Schema: 2, Count: 3 * n, Sum: float64(n), Buckets: map[int]uint64{-8: 2 * n, 3: n}}
			answer, err := json.Marshal(worker.List{Worker: 1 << 30, Program: "stand-in", Ports: []worker.Port{{
				Protocol: "sctp", Frontend: "127.0.0.1:3868", Backend: "127.0.0.1:1", State: worker.Serving, Since: began,
				Counters:   map[string]uint64{"accepted": n, "active": 1, "messages-in": n},
				Histograms: map[string]worker.Histogram{"connect-duration": durations, "connection-duration": durations},
			}}})
			rig.Check(t, err)
			_, _ = conn.Read(make([]byte, 100)) // whatever it is
			_, err = conn.Write(append(answer, '\n'))
			rig.Check(t, errors.Join(err, conn.Close()))
		}
	}()
	t.Cleanup(func() {
		rig.Must(t, l.Close())
		<-ended
	})
}

// prometheus runs one that scrapes the host and has our rules, and gives its URL.
func (h *host) prometheus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(contrib + "prometheus/portsplice.rules.yml")
	rig.Must(t, err)
	target, err := url.Parse(h.metrics)
	rig.Must(t, err)
	config := filepath.Join(dir, "prometheus.yml")
	rig.Must(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: portsplice
    static_configs: [{targets: [%q]}]
`, rules, target.Host), 0o600))
	promtool(t, nil, "check", "config", config)
	log := h.start(t, nil, "prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", "127.0.0.1:9090", "--enable-feature=native-histograms", "--log.level", "warn")
	go func() { _, _ = io.Copy(os.Stderr, log) }() // until it ends
	prometheus := "http://127.0.0.1:9090"
	rig.Until(t, "prometheus is ready", func() bool {
		_, err := h.fetch(prometheus + "/-/ready")
		return err == nil
	})
	return prometheus
}

// query is what a panel of the dashboard asks.
type query struct{ panel, text string }

// dashboard gives the queries, with Grafana's variables as they are when all is selected.
func dashboard(t *testing.T) (all []query) {
	t.Helper()
	b, err := os.ReadFile(contrib + "grafana/portsplice.json")
	rig.Must(t, err)
	var d struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name string } }
	}
	rig.Must(t, json.Unmarshal(b, &d))
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			text := strings.NewReplacer("$instance", ".*", "$port", ".*", "$__rate_interval", "30s").Replace(target.Expr)
			if strings.Contains(text, "$") {
				t.Errorf("panel %q asks with an unknown variable: %s", p.Title, text)
			}
			all = append(all, query{p.Title, text})
		}
	}
	return all
}

// TestPrometheus: promtool has nothing to say of the metrics, Prometheus scrapes them and evaluates the rules, and every
// query of the dashboard has data.
func TestPrometheus(t *testing.T) {
	h := newHost(t)
	talk := traffic(t, h)
	standIn(t, h)
	h.export(t)
	talk()
	promtool(t, h.get(t, h.metrics), "check", "metrics")
	prometheus := h.prometheus(t)

	// ask gives the values of a query's result.
	ask := func(text string) (values []string) {
		var answer struct {
			Data struct{ Result []struct{ Value []any } }
		}
		b := h.get(t, prometheus+"/api/v1/query?query="+url.QueryEscape(text))
		rig.Must(t, json.Unmarshal(b, &answer))
		for _, r := range answer.Data.Result {
			values = append(values, fmt.Sprint(r.Value[1:]...))
		}
		return values
	}
	left, scrapes := dashboard(t), 0
	t.Cleanup(func() {
		for _, q := range left {
			t.Logf("without data: %s: %s", q.panel, q.text)
		}
	})
	for len(left) > 0 {
		talk()
		rig.Until(t, "another scrape, for all queries of the dashboard to have data", func() bool {
			n := ask(`count_over_time(portsplice_up[1h])`)
			return len(n) == 1 && n[0] != fmt.Sprint(scrapes)
		})
		if scrapes++; scrapes == 30 {
			t.Fatal("some queries have no data after 30 scrapes")
		}
		left = slices.DeleteFunc(left, func(q query) bool { return len(ask(q.text)) > 0 })
	}
	for _, variable := range []string{"portsplice_up", "portsplice_port_start_time_seconds"} { // of the dashboard
		if len(ask(variable)) == 0 {
			t.Errorf("there is no %s", variable)
		}
	}
	if n := ask(`portsplice_backend_connect_failures_total{host_port="81",reason="refused"} > 0`); len(n) != 1 {
		t.Errorf("the ports that are refused have %q, want one", n)
	}
	if n := ask(`histogram_quantile(0.5, rate(portsplice_connect_duration_seconds{protocol="sctp"}[1m])) < 0.25`); len(n) != 1 {
		t.Errorf("half of the dials took %q, want less than 250 ms", n)
	}
	if n := ask(`portsplice_worker_resident_memory_bytes > 1e6 and portsplice_worker_open_fds > 5`); len(n) == 0 {
		t.Error("no worker tells of its memory and descriptors")
	}

	type rule struct{ Name, Health, LastError string }
	rig.Until(t, "all rules are evaluated", func() bool {
		var answer struct {
			Data struct{ Groups []struct{ Rules []rule } }
		}
		rig.Must(t, json.Unmarshal(h.get(t, prometheus+"/api/v1/rules"), &answer))
		if len(answer.Data.Groups) != 1 || len(answer.Data.Groups[0].Rules) == 0 {
			t.Fatalf("the rules are %v", answer)
		}
		return !slices.ContainsFunc(answer.Data.Groups[0].Rules, func(r rule) bool { return r.Health != "ok" })
	})
}

// thousand is a host with a thousand ports, of which each has had a connection, and a port that echoes.
func thousand(b *testing.B) (h *host, echo netip.AddrPort) {
	b.Helper()
	h = newHost(b)
	for i := range ports {
		h.publish(b, "tcp", frontend(10_000+i), frontend(9)) // where nobody listens
	}
	var l *net.TCPListener
	rig.Must(b, h.Do(func() error {
		for i := range ports {
			rig.WantReset(b, frontend(10_000+i))
		}
		l = rig.Listen(b, rig.Loopback)
		return nil
	}))
	echo = frontend(9_999)
	h.publish(b, "tcp", echo, rig.Serve(b, l, rig.Echo))
	return h, echo
}

const ports = 1000

// ps is its output.
func (h *host) ps(b *testing.B, args ...string) []byte {
	cmd := exec.Command(filepath.Join(*programs, "portsplicectl"), append([]string{"ps"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	rig.Must(b, h.Do(cmd.Run))
	return out.Bytes()
}

// BenchmarkPorts looks at a thousand ports: by ps, as a process, and by a scrape.
func BenchmarkPorts(b *testing.B) {
	h, _ := thousand(b)
	h.export(b)
	for name, look := range map[string]func() []byte{
		"ps":      func() []byte { return h.ps(b) },
		"ps-json": func() []byte { return h.ps(b, "--json") },
		"scrape":  func() []byte { return h.get(b, h.metrics) },
	} {
		b.Run(fmt.Sprintf("look=%s/ports=%d", name, ports), func(b *testing.B) {
			for b.Loop() {
				if n := bytes.Count(look(), []byte("127.0.0.1")); n < ports {
					b.Fatalf("%d ports are told of, want %d", n, ports)
				}
			}
		})
	}
}

// BenchmarkExchange has a client exchange 64 bytes with the echo while ps looks at a thousand ports, time and again, and while
// nobody does.
func BenchmarkExchange(b *testing.B) {
	h, echo := thousand(b)
	var conn net.Conn
	rig.Must(b, h.Do(func() (err error) {
		conn, err = net.Dial("tcp", echo.String())
		return err
	}))
	for _, looks := range []bool{false, true} {
		b.Run(fmt.Sprintf("ps=%v/ports=%d", looks, ports), func(b *testing.B) {
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for looks {
					select {
					case <-stop:
						return
					default:
						h.ps(b)
					}
				}
			}()
			message := make([]byte, 64)
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				_, err := conn.Write(message)
				rig.Must(b, err)
				_, err = io.ReadFull(conn, message)
				rig.Must(b, err)
				took = append(took, time.Since(began))
			}
			close(stop)
			<-stopped
			slices.Sort(took)
			for name, part := range map[string]float64{"p50-us": 0.5, "p99-us": 0.99} {
				b.ReportMetric(float64(took[int(part*float64(len(took)-1))].Nanoseconds())/1000, name)
			}
		})
	}
	rig.Must(b, conn.Close())
}
