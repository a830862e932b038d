package load

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// values are what was measured, by unit.
type values = map[string]float64

// request is what the command line asks for: declare says what each means.
type request struct {
	on, sink, to, counts              netip.AddrPort
	headers                           bool
	conns, ports, size, answer, count int
	datagrams, single, churns, beside bool
	window                            int
	offered                           float64
	direction                         string
	time, warmup                      time.Duration
	proxy, ends                       []int // processes
}

// commands are the server and what runs against it.
var commands = map[string]func(request) values{
	"serve": serve, "exchange": exchange, "idle": idle, "oneshot": oneshot, "crr": crr, "connects": connects,
	"bulk": bulk, "readers": readers, "pour": pour,
}

// Run is a process of its own: a server or a client, by the first argument.
func Run(args []string) error {
	prepare()
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("usage: load %s [flags]", strings.Join(slices.Sorted(maps.Keys(commands)), "|"))
	}
	var r request
	fs := flag.NewFlagSet("load "+args[0], flag.ExitOnError)
	r.declare(fs)
	_ = fs.Parse(args[1:]) // it exits
	if err := failure.Caught(func() { failure.Check(json.NewEncoder(os.Stdout).Encode(commands[args[0]](r))) }); err != nil {
		return fmt.Errorf("%s at %v: %w", args[0], cmp.Or(r.on, r.to), err)
	}
	return nil
}

func (r *request) declare(fs *flag.FlagSet) {
	fs.TextVar(&r.on, "on", r.on, "where the server answers messages and datagrams, and streams begin and end")
	fs.TextVar(&r.sink, "sink", r.sink, "where the server counts datagrams")
	fs.BoolVar(&r.headers, "headers", false, "whether connections are to begin with a PROXY header of version 2")
	fs.TextVar(&r.to, "to", r.to, "where to connect to: the proxy, or the server itself")
	fs.TextVar(&r.counts, "counts", r.counts, "the server's own address, never by way of the proxy")
	fs.IntVar(&r.conns, "conns", 1, "connections or flows at a time")
	fs.IntVar(&r.ports, "ports", 1, "ports to connect to, in turn, from that of -to on")
	fs.IntVar(&r.count, "count", maxChurn, "connections or flows to open and close, at the most")
	fs.BoolVar(&r.churns, "churn", false, "choose source ports, count connections that fail, compare the first with the last")
	fs.BoolVar(&r.beside, "beside", false, "measure the rate and the CPU times of others' streams too")
	fs.IntVar(&r.size, "size", 64, "bytes of a message or datagram")
	fs.IntVar(&r.answer, "answer", 0, "bytes of the answer to a datagram (default: as many)")
	fs.BoolVar(&r.datagrams, "datagrams", false, "ask by datagrams rather than by messages on connections")
	fs.IntVar(&r.window, "window", 1, "datagrams that each client has under way")
	fs.BoolVar(&r.single, "single", false, "stream datagrams one by one")
	fs.Float64Var(&r.offered, "offered", 0, "Gbit/s of datagrams to stream")
	fs.StringVar(&r.direction, "direction", "down", "of a stream: down, up or both")
	fs.DurationVar(&r.time, "time", time.Second, "how long to measure")
	fs.DurationVar(&r.warmup, "warmup", 100*time.Millisecond, "how long to run before")
	fs.Func("proxy", "process whose CPU time is the proxy's; may be repeated", appendTo(&r.proxy))
	fs.Func("end", "process whose CPU time is that of the ends, as this one's is; may be repeated", appendTo(&r.ends))
}

func appendTo(pids *[]int) func(string) error {
	return func(s string) error {
		pid, err := strconv.Atoi(s)
		*pids = append(*pids, pid)
		return err
	}
}
