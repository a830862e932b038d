package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Unit is something measured and which way is better.
type Unit struct {
	Name string `json:"name"`
	More bool   `json:"more,omitempty"` // is better
}

// Values are what one measurement gave, by the name of the unit. What does not apply, such as the CPU time of no
// proxy, is not there.
type Values map[string]float64

// Work is something that proxies are made to do.
type Work struct {
	Name     string        `json:"name"`              // as in pingpong/size=64/conns=1
	Units    []Unit        `json:"units"`             // the first is the one that counts most
	Protocol string        `json:"protocol"`          // tcp or udp
	Kind     Kind          `json:"kind"`              // how it is measured
	Time     time.Duration `json:"time,omitempty"`    // how long traffic takes, if that is not for a person to choose
	Missing  string        `json:"missing,omitempty"` // what is not installed, and so it cannot be measured

	client  []string // arguments of the load command, or the name of somebody else's
	count   int      // of idle connections, flows or ports
	ports   int      // with a process each, or one for all where a proxy can; none means one
	streams int      // beside it, down and through the same port
	stretch int      // makes the time of a round so many times longer, where that is more than one
	toSink  bool     // where datagrams are not answered
}

// readers is how many processes read the streams beside other work. One that reads slowly hides what they do to it.
const readers = 8

// Kind is a way to measure.
type Kind string

const (
	traffic   Kind = "traffic" // of the load command, for the time that it is measured
	idle      Kind = "idle"    // connections or flows
	idlePorts Kind = "ports"   // and how long it took to get there
	others    Kind = "others"  // traffic of a client that somebody else wrote
)

// The protocols.
const (
	tcp = "tcp"
	udp = "udp"
)

// Fits tells whether there is anything to measure: whether the proxy knows the protocol, and is something that dockerd
// can start where that is the work. What is told of clients is of short connections.
func (w Work) Fits(p Proxy) bool {
	return slices.Contains(p.Protocols, w.Protocol) && (w.Kind != idlePorts || p.Name != Direct && !p.Peer) &&
		(w.local() || !p.Bypass) && (!p.Headers || strings.HasPrefix(w.Name, "crr/"))
}

// said is what the name says of something, as "64" of size in pingpong/size=64/conns=1.
func (w Work) said(what string) string {
	_, rest, _ := strings.Cut(w.Name, "/"+what+"=")
	value, _, _ := strings.Cut(rest, "/")
	return value
}

// number is said as a number; 0 if it is none.
func (w Work) number(what string) int {
	n, _ := strconv.Atoi(w.said(what))
	return n
}

// local tells whether the client is on the host, and connects to 127.0.0.1.
func (w Work) local() bool { return strings.HasPrefix(w.Name, "local-") }

// mostProcesses is how many ports a proxy is measured with that has a process for each: docker-proxy takes a megabyte.
const mostProcesses = 200

// mostFlows is more than a proxy may have unless it is told so.
const mostFlows = 10_000

// Works lists all work. Of idle connections there are 10,000, or as many as a proxy can have that takes two descriptors
// for each and a few of its own.
func Works(descriptors uint64) (works []Work) {
	answers := func(one string) string { // the units of questions and answers, by what one is
		return strings.ReplaceAll("+ONE/s p50-us p99-us p99.9-us proxy-us/ONE machine-us/ONE load-us/ONE", "ONE", one)
	}
	exchanges, conns := answers("exchange"), answers("conn")
	const (
		streams  = "+Gbit/s proxy-s/GB machine-s/GB load-s/GB"
		ports    = "start-ms first-ms pss-kB/port private-kB/port kernel-kB/port machine-kB/port threads/port"
		requests = "+request/s p50-us p99-us mean-us proxy-us/request machine-us/request"
		pingpong = "exchange -size $size -conns $conns"
		grown    = " -warmup 1s" // of streams: their buffers
		bulk     = "bulk -direction $direction -conns $conns" + grown
	)
	datagrams, sink := Work{Protocol: udp}, Work{Protocol: udp, toSink: true}
	beside := Work{stretch: 3} // where an answer takes 20 ms, a p99 takes time
	for _, row := range []struct {
		names  string
		units  string // of those with a + more is better
		client string // with what the name says
		Work          // TCP and traffic if it does not say otherwise
	}{
		{"pingpong/size=64/conns=1 pingpong/size=64/conns=64 pingpong/size=64/conns=1000 " +
			"pingpong/size=1024/conns=1 pingpong/size=1024/conns=64 pingpong/size=1024/conns=1000 " +
			"pingpong/size=16384/conns=1 pingpong/size=16384/conns=64 pingpong/size=16384/conns=1000 " +
			"pingpong/size=262144/conns=1 pingpong/size=262144/conns=64 pingpong/size=262144/conns=1000 " +
			"pingpong/size=16384/conns=16 pingpong/size=262144/conns=16", exchanges, pingpong, Work{}},
		// A client on each port.
		{"pingpong-ports/size=64/ports=200 pingpong-ports/size=64/ports=1000", exchanges, "exchange -conns $ports", Work{}},
		// Connect, send, receive, close.
		{"crr/conns=8", conns, "crr -conns $conns", Work{}},
		// Many short connections in a row, twice as many as the host has source ports for at a time: each leaves one in
		// TIME_WAIT (moby#47537). It takes 15 seconds at the most.
		{"churn/conns=60000", conns + " first-quarter-p99-us last-quarter-p99-us +opened failed-%",
			"crr -conns 8 -warmup 0 -churn -count $conns", Work{Time: 15 * time.Second}},
		{"bulk/direction=down/conns=1 bulk/direction=down/conns=8 bulk/direction=down/conns=64 " +
			"bulk/direction=up/conns=1 bulk/direction=up/conns=8 bulk/direction=up/conns=64 " +
			"bulk/direction=both/conns=1 bulk/direction=both/conns=8 bulk/direction=both/conns=64", streams, bulk, Work{}},
		// 200 connects at once, again and again: the first byte of an answer to each. And one client with one small
		// message under way.
		{"connects-beside/streams=8", "p50-us last-us " + streams, "connects -conns 200 -beside" + grown, beside},
		{"message-beside/streams=8", "p50-us p99-us +exchange/s " + streams, "exchange -beside" + grown, beside},
		{"connects-beside/streams=64", "p50-us last-us " + streams, "connects -conns 200 -beside" + grown, beside},
		// Messages that are large, and are no streams themselves.
		{"message-beside/size=262144/streams=8 message-beside/size=262144/streams=64",
			"p50-us p99-us +exchange/s " + streams, "exchange -beside -size $size" + grown, beside},
		{"message-beside/streams=64", "p50-us p99-us +exchange/s " + streams, "exchange -beside" + grown, beside},
		// What a client on the host has of the same, and a proxy without a hop.
		{"local-pingpong/size=64/conns=1 local-pingpong/size=64/conns=64 local-pingpong/size=64/conns=1000",
			exchanges, pingpong, Work{}},
		{"local-crr/conns=8", conns, "crr -conns $conns", Work{}},
		{"local-bulk/direction=down/conns=8", streams, bulk, Work{}},
		{"idle/conns=2000", "kernel-kB/conn pss-kB/conn private-kB/conn fds/conn", "idle", Work{Kind: idle}},
		{"start/ports=200", ports, "", Work{Kind: idlePorts}},
		{"redis-benchmark", requests, "redis-benchmark", Work{Kind: others}},
		{"wrk", requests, "wrk", Work{Kind: others}},
		{"pgbench", strings.ReplaceAll(requests, "request", "transaction"), "pgbench", Work{Kind: others}},
		{"iperf3", streams, "iperf3", Work{Kind: others}},
		// Datagrams of 200 bytes are what DNS and games send. Each client has so many under way.
		{"udp-echo/size=200/conns=64/window=1 udp-echo/size=200/conns=1/window=32", exchanges + " lost-%",
			"exchange -datagrams -size $size -conns $conns -window $window", datagrams},
		// This is DNS: clients that each ask once, 64 of them at a time, which is what a socket's usual buffer has
		// room for.
		{"udp-oneshot/size=60,200/clients=1500", exchanges + " lost-%",
			"oneshot -datagrams -size 60 -answer 200 -conns 64 -count $clients", datagrams},
		// Of blocks that the kernel cuts 10 Gbit/s are five times and more what docker-proxy delivers of it on two cores
		// (1.2 to 1.8), and what direct still delivers without loss. Of single datagrams 1 Gbit/s is three times as much
		// (0.36), and all that one sender can send to direct.
		{"udp-stream/size=1400/offered=10G", streams + " lost-%", "pour -size $size -offered 10", sink},
		{"udp-single/size=1200/offered=1G", streams + " lost-%", "pour -single -size $size -offered 1", sink},
		{fmt.Sprintf("udp-idle/flows=%d", mostFlows), "kernel-kB/flow pss-kB/flow private-kB/flow fds/flow",
			"idle -datagrams", Work{Protocol: udp, Kind: idle}},
		{"udp-start/ports=200", ports, "", Work{Protocol: udp, Kind: idlePorts}},
		// What forks for each is a load for long afterwards, so most idle connections are last.
		{fmt.Sprintf("idle/conns=%d", min(10_000, descriptors/2-50)),
			"kernel-kB/conn pss-kB/conn private-kB/conn fds/conn", "idle", Work{Kind: idle}},
	} {
		w := row.Work
		w.Protocol, w.Kind = cmp.Or(w.Protocol, tcp), cmp.Or(w.Kind, traffic)
		for name := range strings.FieldsSeq(row.units) {
			name, more := strings.CutPrefix(name, "+")
			w.Units = append(w.Units, Unit{name, more})
		}
		for name := range strings.FieldsSeq(row.names) {
			w.Name = name
			w.client = strings.Fields(os.Expand(row.client, w.said))
			w.ports, w.streams = w.number("ports"), w.number("streams")
			if w.Kind == idle || w.Kind == idlePorts {
				w.count = max(w.number("conns"), w.number("flows"), w.ports)
			}
			works = append(works, w)
		}
	}
	return works
}

// Set is how much is measured.
type Set struct {
	Works  string        // as for Select
	Rounds int           // that count
	Time   time.Duration // how long traffic takes in a round
}

// Select gives the works that a list separated by commas names: each by its name or the beginning of it up to a
// slash. Everything is selected by nothing.
func Select(works []Work, list string) ([]Work, error) {
	if list == "" {
		return works, nil
	}
	var selected []Work
	for name := range strings.SplitSeq(list, ",") {
		named := func(w Work) bool { return strings.HasPrefix(w.Name+"/", name+"/") }
		if !slices.ContainsFunc(works, named) {
			return nil, fmt.Errorf("no work is named %q", name)
		}
		for _, w := range works {
			if named(w) && !slices.ContainsFunc(selected, func(s Work) bool { return s.Name == w.Name }) {
				selected = append(selected, w)
			}
		}
	}
	return selected, nil
}
