package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

type answers = []workers.Answer[worker.List]

// someAnswers are those of two workers, the second in another namespace.
func someAnswers() answers {
	began := time.Now().Add(-3*time.Hour - time.Minute)
	return answers{
		{Told: worker.List{Worker: 4242, Ports: []worker.Port{
			{Protocol: "tcp", Frontend: "0.0.0.0:443", Backend: "172.17.0.2:8443", Shim: 100, Since: began, State: worker.Serving,
				Engine: "splice", Bypass: "on", Counters: map[string]uint64{"active": 12, "accepted": 123456, "bytes-in": 1234567,
					"bytes-out": 98_700_000_000, "spliced": 97_500_000_000, "copied": 1_201_234_567, "bypassed": 31,
					"dial-errors": 4, "dial-refused": 3, "accept-errors": 9}},
			{Protocol: "tcp", Frontend: "[::]:443", Backend: "172.17.0.2:8443", Shim: 101, Since: began, State: worker.Draining,
				Engine: "splice", Bypass: "the kernel has no BPF", Counters: map[string]uint64{"active": 1, "accepted": 1, "source-refused": 6}},
			{Protocol: "udp", Frontend: "127.0.0.1:53", Backend: "172.17.0.3:53", Shim: 102, Since: began.Add(3 * time.Hour),
				State: worker.Serving, Engine: "udp", Bypass: "off", Counters: map[string]uint64{"flows": 2, "flows-total": 7,
					"bytes-in": 700, "bytes-out": 999, "dropped": 3, "kernel-dropped": 4, "refused": 5}},
		}}},
		{Namespace: "net:[42]", Told: worker.List{Worker: 77, Ports: []worker.Port{
			{Protocol: "sctp", Frontend: "0.0.0.0:3868", Backend: "172.17.0.2:3868", Shim: 7, Since: began, // an older worker
				Engine: "sctp", Counters: map[string]uint64{"active": 1, "accepted": 2, "undelivered": 8}},
		}}},
	}
}

// somebody is a host whose workers answer that.
func somebody(told func() (answers, error)) host {
	return host{
		list: told,
		clients: func(question string) ([]workers.Answer[worker.Clients], error) {
			if question != "clients 10 tcp 0.0.0.0:443" {
				return nil, nil
			}
			return []workers.Answer[worker.Clients]{{Told: worker.Clients{Worker: 4242, Ports: []worker.PortClients{
				{Shim: 99, Clients: []worker.Client{{Address: "192.0.2.9:1"}}}, // another's
				{Shim: 100, Clients: []worker.Client{
					{Address: "192.0.2.1:50000", Age: 61, BytesIn: 1000, BytesOut: 2_000_000},
					{Address: "192.0.2.2:1", Age: 5, BytesIn: 3},
				}},
			}}}}, nil
		},
		names: func() map[netip.Addr]string {
			return map[netip.Addr]string{netip.MustParseAddr("172.17.0.2"): "web"}
		},
	}
}

// typed runs the command on that host, and gives what it prints.
func typed(h host, args ...string) (out, diagnosis string, err error) {
	var o, d bytes.Buffer
	c := psOn(h)
	c.SetArgs(args)
	c.SetOut(&o)
	c.SetErr(&d)
	c.SilenceUsage, c.SilenceErrors = true, true
	err = c.ExecuteContext(context.Background())
	return o.String(), d.String(), err
}

func TestPs(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"table", nil, `
PORT              CONTAINER        NAME  NAMESPACE  STATE     AGE  CONNECTIONS  TOTAL  RECEIVED  SENT     RATE  SPLICED  DROPPED  ERRORS                       BYPASSED
0.0.0.0:443/tcp   172.17.0.2:8443  web              serving   3h   12           123k   1.23 MB   98.7 GB  -     99%      0        accept 9, refused 3, other 1  31
[::]:443/tcp      172.17.0.2:8443  web              draining  3h   1            1      0 B       0 B      -     -        0        source 6                     no: the kernel has no BPF
127.0.0.1:53/udp  172.17.0.3:53                     serving   1m   2            7      700 B     999 B    -     -        7        refused 5                    -
0.0.0.0:3868/sctp  172.17.0.2:3868        net:[42]   serving   3h   1            2      0 B       0 B      -     -        8        -                            -
`},
		{"detail", []string{"0.0.0.0:443"}, `
0.0.0.0:443/tcp
  container    172.17.0.2:8443, web
  state        serving for 3h, engine splice, worker 4242, shim 100
  connections  12 now, 123k in all
  received     1.23 MB
  sent         98.7 GB
  rate         -
  spliced      99% of all bytes
  errors       accept 9, refused 3, other 1
  bypassed     31
  counters     accept-errors=9 accepted=123456 active=12 bypassed=31 bytes-in=1234567 bytes-out=98700000000 copied=1201234567 dial-errors=4 dial-refused=3 spliced=97500000000

  CLIENT           AGE  RECEIVED  SENT
  192.0.2.1:50000  1m   1.00 kB   2.00 MB
  192.0.2.2:1      5s   3 B       0 B
`},
		{"detail of a flow's port, and of one elsewhere", []string{"50-53/udp", "3868"}, `
127.0.0.1:53/udp
  container  172.17.0.3:53
  state      serving for 1m, engine udp, worker 4242, shim 102
  flows      2 now, 7 in all
  received   700 B
  sent       999 B
  rate       -
  dropped    7
  errors     refused 5
  counters   bytes-in=700 bytes-out=999 dropped=3 flows=2 flows-total=7 kernel-dropped=4 refused=5

0.0.0.0:3868/sctp
  container    172.17.0.2:3868
  state        serving for 3h, engine sctp, worker 77, shim 7, network namespace net:[42]
  connections  1 now, 2 in all
  received     0 B
  sent         0 B
  rate         -
  dropped      8
  errors       -
  counters     accepted=2 active=1 undelivered=8
`},
		{"template", []string{"--format", `{{.Port}} {{printf "%d" .Sent}} {{json .Errors}} {{truncate .Engine 3}}{{pad .Name 1 1}}.`, "443"}, `
0.0.0.0:443/tcp 98700000000 {"accept":9,"other":1,"refused":3} spl web .
[::]:443/tcp 0 {"source":6} spl web .
`},
		{"table of a template", []string{"--format", `table {{.Published}}\t{{upper .Protocol}}\t{{.Connections}}`}, `
PUBLISHED     PROTOCOL  CONNECTIONS
0.0.0.0:443   TCP       12
[::]:443      TCP       1
127.0.0.1:53  UDP       2
0.0.0.0:3868  SCTP      1
`},
		{"fields as JSON", []string{"--format", `{{json .Rate}} {{json .Bypassed}} {{json .Received}} {{json .Spliced}}`, "53", "[::]:443/tcp"}, `
null null 0 null
null null 700 null
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, diagnosis, err := typed(somebody(func() (answers, error) { return someAnswers(), nil }), test.args...)
			if err != nil || diagnosis != "" {
				t.Errorf("%v, %q", err, diagnosis)
			}
			// The widths of the table are those of its longest fields, and of no interest in a line that has one.
			if diff := cmp.Diff(spaced(test.want[1:]), spaced(out)); diff != "" {
				t.Errorf("-want +got:\n%s\n%s", diff, out)
			}
			for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
				if line != strings.TrimRight(line, " ") && test.name == "table of a template" {
					t.Errorf("line %d ends in spaces", i)
				}
			}
		})
	}
}

// spaced makes every run of spaces one.
func spaced(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

// TestColumns: every field begins below its head.
func TestColumns(t *testing.T) {
	out, _, err := typed(somebody(func() (answers, error) { return someAnswers(), nil }))
	rig.Must(t, err)
	lines := strings.Split(out, "\n")
	for _, head := range []string{"CONTAINER", "STATE", "RECEIVED", "BYPASSED"} {
		at := strings.Index(lines[0], head)
		for _, line := range lines[1:5] {
			if at < 2 || line[at-1] != ' ' || line[at] == ' ' {
				t.Errorf("nothing begins below %s in\n%s", head, line)
			}
		}
	}
}

// TestAsJSON: what a program reads are numbers, and lists that are never null.
func TestAsJSON(t *testing.T) {
	out, _, err := typed(somebody(func() (answers, error) { return someAnswers(), nil }), "--json", "0.0.0.0:443")
	rig.Must(t, err)
	for _, want := range []string{
		`"port":"0.0.0.0:443/tcp"`, `"name":"web"`, `"received_bytes":1234567,`, `"rate_bytes_per_second":null`,
		`"bypassed_connections":31,`, `"errors":{"accept":9,"other":1,"refused":3}`, `"clients":[{"client":"192.0.2.1:50000","age":61,`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s has no %s", out, want)
		}
	}
	out, diagnosis, err := typed(somebody(func() (answers, error) { return nil, nil }), "--json")
	if out != "[]\n" || err != nil || !strings.Contains(diagnosis, "No portsplice worker") {
		t.Errorf("without a worker: %q, %q, %v", out, diagnosis, err)
	}
}

// TestPsMistakes: what was typed wrong, and what is wrong with it.
func TestPsMistakes(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"80", `port "80": no worker serves it`},
		{"443/udp", `port "443/udp": no worker serves it`},
		{"443/xyz", `port "443/xyz": unknown protocol "xyz"`},
		{"web", `port "web": "web" is not a port (1 to 65535)`},
		{"0", `port "0": "0" is not a port (1 to 65535)`},
		{"--format {{.Nothing}}", "can't evaluate field Nothing"},
		{"--format {{.Port", "--format: "},
		{"--format table{{.Counters.active}}", "--format: a table has plain fields"},
		{"--clients 101 443", "--clients 101: want a number up to 100"},
		{"--interval 1ms", "--interval 1ms: want 100ms at least"},
		{"--rate=-1s", "--rate -1s: want a time above zero"},
		{"--json --format json", "[format json]"},
	} {
		out, _, err := typed(somebody(func() (answers, error) { return someAnswers(), nil }), strings.Fields(test.args)...)
		if err == nil || !strings.Contains(err.Error(), test.want) || out != "" {
			t.Errorf("%s: %v, %q; want %s", test.args, err, out, test.want)
		}
	}
}

// TestPartOfTheWorkers: when one does not answer, the ports of the others are shown all the same.
func TestPartOfTheWorkers(t *testing.T) {
	silent := errors.New("worker @portsplice/1: i/o timeout")
	out, _, err := typed(somebody(func() (answers, error) { return someAnswers(), silent }))
	if !errors.Is(err, silent) || !strings.Contains(out, "0.0.0.0:443/tcp") {
		t.Errorf("%v,\n%s", err, out)
	}
}

// TestHelpNamesFields: the help has every field of a row, and a table a head for each.
func TestHelpNamesFields(t *testing.T) {
	help := strings.Fields(ps().Long)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[row]()) {
		found := false
		for _, word := range help {
			found = found || word == f.Name
		}
		if _, head := headers[f.Name]; !found || !head {
			t.Errorf("%s is not in the help, or has no head", f.Name)
		}
	}
}

// TestRate: bytes both ways, over the time between two looks, of ports that were there at both.
func TestRate(t *testing.T) {
	began := time.Now()
	at := func(second int, bytes uint64) look {
		a := answers{{Told: worker.List{Ports: []worker.Port{
			{Protocol: "tcp", Frontend: "0.0.0.0:1", Shim: 1, Counters: map[string]uint64{"bytes-in": bytes, "bytes-out": 2 * bytes}},
			{Protocol: "tcp", Frontend: "0.0.0.0:2", Shim: 100 + second},
		}}}}
		now := began.Add(time.Duration(second) * time.Second)
		return look{at: now, rows: rowsOf(a, now)}
	}
	l := at(2, 5000)
	l.rate(at(0, 1000))
	if got := l.rows[0].Rate.String() + " " + l.rows[1].Rate.String(); got != "6.00 kB/s -" {
		t.Errorf("the rates are %s, want 6.00 kB/s and none", got)
	}
	l = at(2, 5000)
	l.rate(look{})
	if got := l.rows[0].Rate.String(); got != "-" {
		t.Errorf("the rate of a first look is %s", got)
	}
}

// TestWatchOnAPipe: tables follow one another, with rates from the second on, and what fails does not end it.
func TestWatchOnAPipe(t *testing.T) {
	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	looks := 0
	h := somebody(func() (answers, error) {
		if looks++; looks == 2 {
			return nil, errors.New("no descriptors")
		}
		return someAnswers(), nil
	})
	o := psOptions{host: h, interval: 100 * time.Millisecond, print: table}
	ended := make(chan error, 1)
	var diagnosis bytes.Buffer
	go func() {
		ended <- o.watchOn(ctx, write, &diagnosis)
		rig.Check(t, write.Close())
	}()
	var all strings.Builder
	for b := make([]byte, 1<<16); strings.Count(all.String(), "RATE") < 4; {
		n, err := read.Read(b)
		rig.Must(t, err)
		all.Write(b[:n])
	}
	cancel()
	_, err := io.Copy(io.Discard, read)
	rig.Must(t, errors.Join(err, <-ended))
	if got := diagnosis.String(); got != "Error: no descriptors\n" {
		t.Errorf("the diagnosis is %q", got)
	}
	if got := all.String(); !strings.Contains(got, "0 B/s") || !strings.Contains(got, "\n\nPORT") || strings.Contains(got, "\x1b") {
		t.Errorf("printed\n%s", got)
	}
}

// TestScreen: lines and columns that do not fit are cut off.
func TestScreen(t *testing.T) {
	var b strings.Builder
	s := screen{&b, func() (int, int, error) { return 5, 4, nil }}
	rig.Must(t, s.show("héad 1234\nb\nc\nd\ne\n"))
	if got, want := b.String(), home+"héad "+clearLine+"\r\nb"+clearLine+"\r\nand 3"+clearLine+"\r\n"+clearBelow; got != want {
		t.Errorf("shows %q, want %q", got, want)
	}
	b.Reset()
	rig.Must(t, s.show("a\nb\nc\n"))
	if got, want := b.String(), home+"a"+clearLine+"\r\nb"+clearLine+"\r\nc"+clearLine+"\r\n"+clearBelow; got != want {
		t.Errorf("shows %q, want %q", got, want)
	}
}

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		size(0).String(): "0 B", size(999).String(): "999 B", size(1000).String(): "1.00 kB", size(999_499).String(): "999 kB",
		size(999_500).String(): "1.00 MB", size(12_345_678).String(): "12.3 MB", size(1<<64 - 1).String(): "18.4 EB",
		count(99_999).String(): "99999", count(100_000).String(): "100k", count(4_560_000).String(): "4.56M",
		age(59 * time.Second).String(): "59s", age(time.Hour).String(): "1h", age(47 * time.Hour).String(): "47h",
		age(48 * time.Hour).String(): "2d", age(-time.Second).String(): "0s",
		rate{known{0.4, true}}.String(): "0 B/s", rate{known{1500, true}}.String(): "1.50 kB/s", rate{}.String(): "-",
		share{known{0.974, true}}.String(): "97%",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
