package main

import (
	"cmp"
	"fmt"
	"slices"
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
	local   bool     // the client is on the host, and connects to 127.0.0.1
}

// readers is how many processes read the streams beside other work. One that reads slowly hides what they do to it.
const readers = 8

// Kind is a way to measure.
type Kind string

const (
	traffic   Kind = "traffic" // of the load command
	idle      Kind = "idle"    // connections or flows
	idlePorts Kind = "ports"   // and how long it took to get there
	others    Kind = "others"  // traffic of a client that somebody else wrote
)

// The protocols.
const (
	tcp = "tcp"
	udp = "udp"
)

var (
	streamUnits = []Unit{{"Gbit/s", true}, {"proxy-s/GB", false}, {"machine-s/GB", false}, {"load-s/GB", false}}
	lost        = Unit{"lost-%", false}
)

// answerUnits are those of work that consists of questions and answers, by what one is.
func answerUnits(one string) []Unit {
	return []Unit{{one + "/s", true}, {"p50-us", false}, {"p99-us", false}, {"p99.9-us", false},
		{"proxy-us/" + one, false}, {"machine-us/" + one, false}, {"load-us/" + one, false}}
}

// Fits tells whether there is anything to measure: whether the proxy knows the protocol, and is something that dockerd
// can start where that is the work. What is told of clients is of short connections.
func (w Work) Fits(p Proxy) bool {
	return slices.Contains(p.Protocols, w.Protocol) && (w.Kind != idlePorts || p.Name != Direct && !p.Peer) &&
		(w.local || !p.Bypass) && (!p.Headers || strings.HasPrefix(w.Name, "crr/"))
}

// Traffic tells whether the work is traffic for the time that it is measured.
func (w Work) Traffic() bool { return w.Kind == traffic }

// long tells whether the work takes many seconds, or is about memory, which needs no getting used to.
func (w Work) long() bool { return w.Time != 0 || w.Kind == idle }

// mostProcesses is how many ports a proxy is measured with that has a process for each: docker-proxy takes a megabyte.
const mostProcesses = 200

// mostFlows is more than a proxy may have unless it is told so.
const mostFlows = 10_000

// localWorks are those that are measured with a client on the host, too.
var localWorks = []string{"pingpong/size=64/conns=1", "pingpong/size=64/conns=64", "pingpong/size=64/conns=1000", "crr/conns=8",
	"bulk/direction=down/conns=8"}

// Works lists all work. Of idle connections there are 10,000, or as many as a proxy can have that takes two descriptors
// for each and a few of its own.
func Works(descriptors uint64) []Work {
	var works []Work
	add := func(w Work) { works = append(works, w) }
	pingpong := func(size, conns int) {
		add(newTraffic(tcp, answerUnits("exchange"), "pingpong/size=%d/conns=%d", "exchange -size %d -conns %d", size, conns))
	}
	for _, size := range []int{64, 1 << 10, 16 << 10, 256 << 10} {
		for _, conns := range []int{1, 64, 1000} {
			pingpong(size, conns)
		}
	}
	pingpong(16<<10, 16)
	pingpong(256<<10, 16)
	for _, ports := range []int{mostProcesses, 1000} { // a client on each
		w := newTraffic(tcp, answerUnits("exchange"), "pingpong-ports/size=64/ports=%d", "exchange -conns %d", ports)
		w.ports = ports
		add(w)
	}
	add(newTraffic(tcp, answerUnits("conn"), "crr/conns=%d", "crr -conns %d", 8)) // connect, send, receive, close
	add(churn(60_000))
	for _, direction := range []string{"down", "up", "both"} {
		for _, conns := range []int{1, 8, 64} {
			add(newTraffic(tcp, streamUnits, "bulk/direction=%s/conns=%d", "bulk -direction %s -conns %d", direction, conns))
		}
	}
	for _, streams := range []int{8, 64} {
		// 200 connects at once, again and again: the first byte of an answer to each.
		add(beside("connects", streams, []Unit{{"p50-us", false}, {"last-us", false}}, "connects -conns 200"))
		// One client with one small message under way.
		add(beside("message", streams, []Unit{{"p50-us", false}, {"p99-us", false}, {"exchange/s", true}}, "exchange"))
	}
	for _, w := range slices.Clone(works) { // what a client on the host has of the same, and a proxy without a hop
		if slices.Contains(localWorks, w.Name) {
			w.Name, w.local = "local-"+w.Name, true
			add(w)
		}
	}
	add(held("idle/conns=%d", "conn", tcp, "idle", 2000))
	add(start("start/ports=%d", tcp, 200))
	for _, c := range []struct{ client, one string }{
		{"redis-benchmark", "request"}, {"wrk", "request"}, {"pgbench", "transaction"}, {"iperf3", ""},
	} {
		add(realClientWork(c.client, c.one))
	}
	// Datagrams of 200 bytes are what DNS and games send. Each client has so many under way.
	for _, e := range []struct{ conns, window any }{{64, 1}, {1, 32}} {
		add(newTraffic(udp, append(answerUnits("exchange"), lost), "udp-echo/size=200/conns=%d/window=%d",
			"exchange -datagrams -size 200 -conns %d -window %d", e.conns, e.window))
	}
	// This is DNS: clients that each ask once, 64 of them at a time, which is what a socket's usual buffer has room
	// for.
	add(newTraffic(udp, append(answerUnits("exchange"), lost), "udp-oneshot/size=60,200/clients=%d",
		"oneshot -datagrams -size 60 -answer 200 -conns 64 -count %d", 1500))
	// Of blocks that the kernel cuts 10 Gbit/s are five times and more what docker-proxy delivers of it on two cores
	// (1.2 to 1.8), and what direct still delivers without loss. Of single datagrams 1 Gbit/s is three times as much
	// (0.36), and all that one sender can send to direct.
	add(pour("udp-stream/size=%d/offered=%dG", "pour -size %d -offered %d", 1400, 10))
	add(pour("udp-single/size=%d/offered=%dG", "pour -single -size %d -offered %d", 1200, 1))
	add(held("udp-idle/flows=%d", "flow", udp, "idle -datagrams", mostFlows))
	add(start("udp-start/ports=%d", udp, 200))
	add(held("idle/conns=%d", "conn", tcp, "idle", int(min(10_000, descriptors/2-50))))
	return works // what forks for each is a load for long afterwards, so most idle connections are last
}

// newTraffic is traffic: a client of the load command with its arguments. What stands in both formats comes last.
func newTraffic(protocol string, units []Unit, name, client string, v ...any) Work {
	return Work{Name: fmt.Sprintf(name, v...), Units: units, Kind: traffic, Protocol: protocol,
		client: strings.Fields(fmt.Sprintf(client, v...))}
}

// churn is many short connections in a row, twice as many as the host has source ports for at a time: each leaves one
// in TIME_WAIT (moby#47537).
func churn(count int) Work {
	units := append(answerUnits("conn"), Unit{"first-quarter-p99-us", false}, Unit{"last-quarter-p99-us", false},
		Unit{"opened", true}, Unit{"failed-%", false})
	w := newTraffic(tcp, units, "churn/conns=%d", "crr -conns 8 -warmup 0 -churn -count %d", count)
	w.Time = 15 * time.Second // at the most
	return w
}

// beside is work beside streams. It takes three times as long as others: where an answer takes 20 ms, a p99 takes time.
func beside(what string, streams int, units []Unit, client string) Work {
	return Work{Name: fmt.Sprintf("%s-beside/streams=%d", what, streams), Units: append(units, streamUnits...),
		Kind: traffic, Protocol: tcp, client: append(strings.Fields(client), "-beside"), streams: streams, stretch: 3}
}

// pour is a stream of datagrams of so many bytes at so many Gbit/s.
func pour(name, client string, size, offered int) Work {
	w := newTraffic(udp, append(slices.Clone(streamUnits), lost), name, client, size, offered)
	w.toSink = true
	return w
}

// held is connections or flows that are idle.
func held(name, one, protocol, client string, count int) Work {
	units := []Unit{{"kernel-kB/" + one, false}, {"pss-kB/" + one, false}, {"private-kB/" + one, false},
		{"fds/" + one, false}}
	return Work{Name: fmt.Sprintf(name, count), Units: units, Kind: idle, Protocol: protocol, count: count,
		client: strings.Fields(client)}
}

// start starts proxies that then have nothing to do.
func start(name, protocol string, count int) Work {
	return Work{Name: fmt.Sprintf(name, count), Kind: idlePorts, Protocol: protocol, count: count, ports: count,
		Units: []Unit{{"start-ms", false}, {"first-ms", false}, {"pss-kB/port", false}, {"private-kB/port", false},
			{"kernel-kB/port", false}, {"machine-kB/port", false}, {"threads/port", false}}}
}

// realClientWork is what one of realClients does, in its own unit or, if there is none, in bytes.
func realClientWork(client, one string) Work {
	w := Work{Name: client, Units: streamUnits, Kind: others, Protocol: tcp, client: []string{client}}
	if one != "" {
		w.Units = []Unit{{one + "/s", true}, {"p50-us", false}, {"p99-us", false}, {"mean-us", false},
			{"proxy-us/" + one, false}, {"machine-us/" + one, false}}
	}
	return w
}

// Set is how much is measured.
type Set struct {
	Works  string        // as for Select
	Rounds int           // that count
	Time   time.Duration // how long traffic takes in a round
}

// sets by name. Streams of datagrams are not in quick: nginx may be silent for half a second in them. On two cores
// quick takes some five minutes, and full about an hour and a half.
var sets = map[string]Set{
	"full": {Rounds: 6, Time: 600 * time.Millisecond},
	"quick": {Rounds: 2, Time: 250 * time.Millisecond, Works: "pingpong/size=64/conns=1,pingpong/size=64/conns=64," +
		"pingpong/size=16384/conns=64,pingpong-ports/size=64/ports=200,crr,bulk/direction=down/conns=8,bulk/direction=up/conns=1," +
		"message-beside/streams=8,idle/conns=2000,start,local-pingpong/size=64/conns=64,udp-echo/size=200/conns=64,udp-oneshot"},
}

// complete takes from a set what was not given.
func (s Set) complete(name string, rest []string) (Set, error) {
	if len(rest) > 0 {
		return s, fmt.Errorf("%q: works are named by -work", rest[0])
	}
	set, found := sets[name]
	if !found {
		return s, fmt.Errorf("no set is named %q; there are quick and full", name)
	}
	s.Rounds, s.Time, s.Works = cmp.Or(s.Rounds, set.Rounds), cmp.Or(s.Time, set.Time), cmp.Or(s.Works, set.Works)
	if s.Rounds < 1 || s.Time <= 0 {
		return s, fmt.Errorf("-rounds %d -time %v: nothing would be measured", s.Rounds, s.Time)
	}
	return s, nil
}

// Select gives the works that a list separated by commas names: each by its name or the beginning of it up to a
// slash. Everything is selected by nothing.
func Select(works []Work, list string) ([]Work, error) {
	if list == "" {
		return works, nil
	}
	var selected []Work
	for name := range strings.SplitSeq(list, ",") {
		found := false
		for _, w := range works {
			if strings.HasPrefix(w.Name+"/", name+"/") {
				found = true
				if !slices.ContainsFunc(selected, func(s Work) bool { return s.Name == w.Name }) {
					selected = append(selected, w)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("no work is named %q", name)
		}
	}
	return selected, nil
}
