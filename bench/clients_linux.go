package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/usage"
)

// realClient is a benchmark that others wrote, and the server that it is for. Each runs for a second: some take no
// less.
type realClient struct {
	server, client command              // the client's {ip} and {port} are where it connects to
	prepare        func(*lab, *process) // before the server starts
	ready          func(*lab)           // beyond an open port

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
		count:   figure{`transactions actually processed: (\d+)`, 1},
		figures: map[string]figure{
			"transaction/s": {`tps = ([\d.]+)`, 1},
			"mean-us":       {`latency average = ([\d.]+) ms`, 1e3},
		},
	},
	"iperf3": {
		server:  command{programs: []string{"iperf3"}, arguments: "-s -B {ip} -p {port}"},
		client:  command{programs: []string{"iperf3"}, arguments: "-c {ip} -p {port} -t 1 -J"},
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
func (l *lab) startRealServer(c realClient) *process {
	server := l.newCommand(c.server, endpoint{protocol: tcp, address: backend})
	server.SysProcAttr.Setsid = true
	if c.prepare != nil {
		c.prepare(l, server)
	}
	failure.Check(l.container.Do(server.Start))
	server.awaitPort(tcp, backend.Port())
	if c.ready != nil {
		c.ready(l)
	}
	return server
}

// measureRealClient runs a real client. It measures by itself what it can; CPU times are those of its whole life.
func (l *lab) measureRealClient(c realClient) Values {
	client := l.newCommand(c.client, endpoint{protocol: tcp, address: l.to})
	before := usage.Read(l.proxies, l.ends)
	out := client.output(l.client.Do)
	after := usage.Read(l.proxies, l.ends)
	after.Ends += client.ProcessState.UserTime() + client.ProcessState.SystemTime()
	// The work tells what CPU time is counted by, as in proxy-us/request or proxy-s/GB.
	counted := slices.IndexFunc(l.work.Units, func(u Unit) bool { return strings.HasPrefix(u.Name, "proxy-") })
	suffix, each := strings.TrimPrefix(l.work.Units[counted].Name, "proxy-"), time.Second
	if strings.HasPrefix(suffix, "us/") {
		each = time.Microsecond
	}
	v := Values(after.Each(before, failure.Must(c.count.find(out)), each, suffix))
	for unit, f := range c.figures {
		v[unit] = failure.Must(f.find(out))
	}
	return v
}

// postgres is where Debian keeps a program of PostgreSQL; what is on PATH there is a wrapper for its own databases.
func postgres(program string) []string {
	return []string{"/usr/lib/postgresql/*/bin/" + program, program}
}

// preparePostgres makes the database at the first time. It is not shut down between measurements but killed, and mends
// itself when it starts. Nobody is who it runs as: it refuses to be root.
func preparePostgres(l *lab, server *process) {
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	server.SysProcAttr.Credential = nobody
	data := filepath.Join(l.dir, "postgres")
	err := os.Mkdir(data, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	failure.Check(err)
	failure.Check(os.Chown(data, int(nobody.Uid), int(nobody.Gid)))
	initdb := exec.CommandContext(l.ctx, find(postgres("initdb")...), "-D", data, "-U", "postgres", "-A", "trust", "-N")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	initdb.Dir = data
	if out, err := initdb.CombinedOutput(); err != nil {
		failure.Check(errors.Join(fmt.Errorf("%s: %w\n%s", initdb, err, out), os.RemoveAll(data))) // the next round makes it anew
	}
}

// postgresIsReady waits until the database takes queries, which is some time after its port is open.
func postgresIsReady(l *lab) {
	isReady := find(postgres("pg_isready")...)
	failure.Check(poll(l.ctx, func() (bool, error) {
		asked := newProcess(l.ctx, isReady, "-q", "-h", backend.Addr().String(), "-p", fmt.Sprint(backend.Port()))
		err := l.container.Do(asked.Run)
		if _, notReady := errors.AsType[*exec.ExitError](err); notReady {
			return false, nil
		}
		return err == nil, err
	}))
}
