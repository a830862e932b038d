package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// values are what was measured, by unit.
type values = map[string]float64

// request is what the command line asks of a client.
type request struct {
	to        netip.AddrPort // the proxy, or the server itself
	counts    netip.AddrPort // the server's streams, never by way of the proxy
	conns     int
	size      int     // of a message or datagram
	window    int     // datagrams that a flow has under way
	offered   float64 // Gbit/s of datagrams
	count     int     // of connections that are opened and closed, at the most
	churns    bool    // those that fail are counted
	direction string
	time      time.Duration
	warmup    time.Duration
	proxy     int // process whose CPU time is read; 0: none
	server    int // the same
}

// clients are what runs against a server, by name.
var clients = map[string]func(request) (values, error){
	"pingpong": pingpong,
	"crr":      crr,
	"bulk":     bulk,
	"idle":     idle,
	"echo":     echo,
	"pour":     pour,
	"flows":    idleFlows,
}

// readTimes reads what the proxy, the server and this client have used.
func (r request) readTimes() (usage.Times, error) {
	ends := []int{os.Getpid()}
	if r.server != 0 {
		ends = append(ends, r.server)
	}
	return usage.Read(r.proxy, ends...)
}

func main() {
	prepare()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: load serve|pingpong|crr|bulk|idle|echo|pour|flows [flags]")
	}
	fs := flag.NewFlagSet("load "+args[0], flag.ExitOnError)
	if args[0] == "serve" {
		var messages, streams netip.AddrPort
		addressVar(fs, &messages, "messages", "where messages are answered")
		addressVar(fs, &streams, "streams", "where streams begin and end")
		_ = fs.Parse(args[1:]) // it exits
		return serve(messages, streams)
	}
	client, found := clients[args[0]]
	if !found {
		return fmt.Errorf("%q is no client", args[0])
	}
	var r request
	r.declare(fs)
	_ = fs.Parse(args[1:]) // it exits
	v, err := client(r)
	if err != nil {
		return fmt.Errorf("%s to %v: %w", args[0], r.to, err)
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}

func (r *request) declare(fs *flag.FlagSet) {
	addressVar(fs, &r.to, "to", "where to connect to")
	addressVar(fs, &r.counts, "counts", "the server's own address for streams")
	fs.IntVar(&r.conns, "conns", 1, "connections or flows at a time")
	fs.IntVar(&r.count, "count", maxChurn, "connections to open and close, at the most")
	fs.BoolVar(&r.churns, "churn", false, "count those that fail, and compare the first with the last")
	fs.IntVar(&r.size, "size", 64, "bytes of a message or datagram")
	fs.IntVar(&r.window, "window", 1, "datagrams that each client has under way")
	fs.Float64Var(&r.offered, "offered", 1, "Gbit/s of datagrams to stream")
	fs.StringVar(&r.direction, "direction", "down", "of a stream: down, up or both")
	fs.DurationVar(&r.time, "time", time.Second, "how long to measure")
	fs.DurationVar(&r.warmup, "warmup", 100*time.Millisecond, "how long to run before")
	fs.IntVar(&r.proxy, "proxy", 0, "process whose CPU time is measured")
	fs.IntVar(&r.server, "server", 0, "process whose CPU time is not anyone else's")
}

func addressVar(fs *flag.FlagSet, a *netip.AddrPort, name, usage string) {
	fs.Func(name, usage, func(s string) (err error) {
		*a, err = netip.ParseAddrPort(s)
		return err
	})
}
