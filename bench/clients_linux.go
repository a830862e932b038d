package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// realClient is a benchmark that others wrote, and the server that it is for. Each runs for a second: some take no
// less.
type realClient struct {
	server, client command                                     // the client's {ip} and {port} are where it connects to
	prepare        func(context.Context, *lab, *process) error // before the server starts
	ready          func(context.Context, *lab) error           // beyond an open port

	cpu     time.Duration // the unit of CPU time for one of what follows
	one     string
	count   figure // how many there were
	figures map[string]figure
}

// figure is a number in a client's output, or a length of time, which becomes microseconds. Without a pattern it is
// known beforehand.
type figure struct {
	pattern string
	scale   float64
}

func (f figure) find(output []byte) (float64, error) {
	if f.pattern == "" {
		return f.scale, nil
	}
	found := regexp.MustCompile(f.pattern).FindSubmatch(output)
	if found == nil {
		return 0, fmt.Errorf("no %q in\n%s", f.pattern, output)
	}
	if d, err := time.ParseDuration(string(found[1])); err == nil {
		return usage.In(time.Microsecond, d), nil
	}
	v, err := strconv.ParseFloat(string(found[1]), 64)
	return v * f.scale, err
}

var realClients = map[string]realClient{
	"redis-benchmark": {
		server: command{programs: []string{"redis-server"}, arguments: "{config}",
			config: "bind {ip}\nport {port}\nprotected-mode no\nsave \"\"\n"},
		client: command{programs: []string{"redis-benchmark"}, arguments: "-h {ip} -p {port} -t get -c 50 -n 50000 --csv"},
		cpu:    time.Microsecond,
		one:    "request",
		count:  figure{scale: 50_000},
		figures: map[string]figure{
			"request/s": {`"GET","([\d.]+)"`, 1},
			"p50-us":    {`"GET"(?:,"[\d.]+"){3},"([\d.]+)"`, 1e3},
			"p99-us":    {`"GET"(?:,"[\d.]+"){5},"([\d.]+)"`, 1e3},
		},
	},
	"wrk": {
		server: command{programs: []string{"nginx"}, arguments: "-e stderr -c {config}", config: `
daemon off;
pid {config}.pid;
events {}
http {
	access_log off;
	keepalive_requests 1000000;
	server {
		listen {ip}:{port};
		location / { return 200 "hello\n"; }
	}
}
`},
		client: command{programs: []string{"wrk"}, arguments: "-t 1 -c 64 -d 1s --latency http://{ip}:{port}/"},
		cpu:    time.Microsecond,
		one:    "request",
		count:  figure{`(\d+) requests in`, 1},
		figures: map[string]figure{
			"request/s": {`Requests/sec:\s+([\d.]+)`, 1},
			"p50-us":    {`50%\s+([\d.]+[mu]?s)`, 1},
			"p99-us":    {`99%\s+([\d.]+[mu]?s)`, 1},
		},
	},
	"pgbench": {
		server: command{programs: postgres("postgres"), config: "host all all 198.18.0.0/15 trust\n",
			arguments: "-D {dir}/postgres -h {ip} -p {port} -c hba_file={config} -c unix_socket_directories= -c fsync=off"},
		client: command{programs: postgres("pgbench"), config: "SELECT 1;",
			arguments: "-h {ip} -p {port} -U postgres -n -f {config} -c 8 -T 1 postgres"},
		prepare: preparePostgres,
		ready:   postgresIsReady,
		cpu:     time.Microsecond,
		one:     "transaction",
		count:   figure{`transactions actually processed: (\d+)`, 1},
		figures: map[string]figure{
			"transaction/s": {`tps = ([\d.]+)`, 1},
			"mean-us":       {`latency average = ([\d.]+) ms`, 1e3},
		},
	},
	"iperf3": {
		server:  command{programs: []string{"iperf3"}, arguments: "-s -B {ip} -p {port}"},
		client:  command{programs: []string{"iperf3"}, arguments: "-c {ip} -p {port} -t 1 -J"},
		cpu:     time.Second,
		one:     "GB",
		count:   figure{`"sum_received":\s*{[^}]*"bytes":\s*(\d+)`, 1e-9},
		figures: map[string]figure{"Gbit/s": {`"sum_received":\s*{[^}]*"bits_per_second":\s*([\d.e+]+)`, 1e-9}},
	},
}

// missing names what of a real client and its server is not installed.
func (c realClient) missing() string {
	var names []string
	for _, needed := range []command{c.server, c.client} {
		if find(needed.programs...) == "" {
			names = append(names, needed.programs[0]+" is not installed")
		}
	}
	return strings.Join(names, ", ")
}

// startRealServer starts the server of a real client where other work has its own.
func (l *lab) startRealServer(ctx context.Context, c realClient) (*process, error) {
	e := endpoint{protocol: tcp, address: backend}
	server, err := l.newCommand(ctx, c.server, e)
	if err == nil && c.prepare != nil {
		err = c.prepare(ctx, l, server)
	}
	if err == nil {
		err = l.container.Do(server.apart().Start)
	}
	if err == nil {
		err = server.awaitPort(ctx, tcp, backend.Port())
	}
	if err == nil && c.ready != nil {
		err = c.ready(ctx, l)
	}
	return server, err
}

// measureRealClient runs a real client. It measures by itself what it can; CPU times are those of its whole life.
func (l *lab) measureRealClient(ctx context.Context, c realClient, r route) (Values, error) {
	client, err := l.newCommand(ctx, c.client, endpoint{protocol: tcp, address: r.to})
	if err != nil {
		return nil, err
	}
	var out []byte
	before, after, err := usage.During(func() (err error) {
		out, err = client.output(ctx, l.client.Do)
		return err
	}, r.proxy, r.ends)
	if err != nil {
		return nil, err
	}
	after.Ends += client.ProcessState.UserTime() + client.ProcessState.SystemTime()
	n, err := c.count.find(out)
	if err != nil {
		return nil, err
	}
	v := Values(after.Each(before, n, c.cpu, map[time.Duration]string{time.Microsecond: "us/", time.Second: "s/"}[c.cpu]+c.one))
	for unit, f := range c.figures {
		if v[unit], err = f.find(out); err != nil {
			return nil, err
		}
	}
	return v, nil
}
