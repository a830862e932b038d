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

// What work is measured in, for units.
const (
	streamUnits = "+Gbit/s proxy-s/GB machine-s/GB load-s/GB"
	startUnits  = "start-ms first-ms pss-kB/port private-kB/port kernel-kB/port machine-kB/port threads/port"
)

// answerUnits are those of work that consists of questions and answers, by what one is.
func answerUnits(one string) string {
	return strings.ReplaceAll("+ONE/s p50-us p99-us p99.9-us proxy-us/ONE machine-us/ONE load-us/ONE", "ONE", one)
}

// units are those of a list of their names. Of one with a + more is better.
func units(list string) (all []Unit) {
	for name := range strings.FieldsSeq(list) {
		name, more := strings.CutPrefix(name, "+")
		all = append(all, Unit{name, more})
	}
	return all
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

// Works lists all work. Of idle connections there are 10,000, or as many as a proxy can have that takes two descriptors
// for each and a few of its own.
func Works(descriptors uint64) []Work {
	var works []Work
	// What stands in the name comes last, and stands in the client's arguments as well if they have a place for it.
	add := func(w Work, list, name, client string, v ...any) {
		if strings.Contains(client, "%") {
			client = fmt.Sprintf(client, v...)
		}
		w.Name, w.Units, w.client = fmt.Sprintf(name, v...), units(list), strings.Fields(client)
		works = append(works, w)
	}
	stream, datagrams := Work{Protocol: tcp, Kind: traffic}, Work{Protocol: udp, Kind: traffic}
	pingpong := func(size, conns int) {
		add(stream, answerUnits("exchange"), "pingpong/size=%d/conns=%d", "exchange -size %d -conns %d", size, conns)
	}
	for _, size := range []int{64, 1 << 10, 16 << 10, 256 << 10} {
		for _, conns := range []int{1, 64, 1000} {
			pingpong(size, conns)
		}
	}
	pingpong(16<<10, 16)
	pingpong(256<<10, 16)
	for _, ports := range []int{mostProcesses, 1000} { // a client on each
		add(Work{Protocol: tcp, Kind: traffic, ports: ports}, answerUnits("exchange"),
			"pingpong-ports/size=64/ports=%d", "exchange -conns %d", ports)
	}
	add(stream, answerUnits("conn"), "crr/conns=%d", "crr -conns %d", 8) // connect, send, receive, close
	// Many short connections in a row, twice as many as the host has source ports for at a time: each leaves one in
	// TIME_WAIT (moby#47537). It takes 15 seconds at the most.
	add(Work{Protocol: tcp, Kind: traffic, Time: 15 * time.Second},
		answerUnits("conn")+" first-quarter-p99-us last-quarter-p99-us +opened failed-%",
		"churn/conns=%d", "crr -conns 8 -warmup 0 -churn -count %d", 60_000)
	for _, direction := range []string{"down", "up", "both"} {
		for _, conns := range []int{1, 8, 64} {
			add(stream, streamUnits, "bulk/direction=%s/conns=%d", "bulk -direction %s -conns %d", direction, conns)
		}
	}
	for _, streams := range []int{8, 64} {
		// It takes three times as long as others: where an answer takes 20 ms, a p99 takes time.
		beside := Work{Protocol: tcp, Kind: traffic, streams: streams, stretch: 3}
		// 200 connects at once, again and again: the first byte of an answer to each.
		add(beside, "p50-us last-us "+streamUnits, "connects-beside/streams=%d", "connects -conns 200 -beside", streams)
		// One client with one small message under way.
		add(beside, "p50-us p99-us +exchange/s "+streamUnits, "message-beside/streams=%d", "exchange -beside", streams)
	}
	for _, w := range slices.Clone(works) { // what a client on the host has of the same, and a proxy without a hop
		if slices.Contains([]string{"pingpong/size=64/conns=1", "pingpong/size=64/conns=64", "pingpong/size=64/conns=1000",
			"crr/conns=8", "bulk/direction=down/conns=8"}, w.Name) {
			w.Name, w.local = "local-"+w.Name, true
			works = append(works, w)
		}
	}
	held := func(protocol, name, one, client string, count int) { // connections or flows that are idle
		list := strings.ReplaceAll("kernel-kB/ONE pss-kB/ONE private-kB/ONE fds/ONE", "ONE", one)
		add(Work{Protocol: protocol, Kind: idle, count: count}, list, name, client, count)
	}
	held(tcp, "idle/conns=%d", "conn", "idle", 2000)
	add(Work{Protocol: tcp, Kind: idlePorts, count: 200, ports: 200}, startUnits, "start/ports=%d", "", 200)
	for _, c := range []struct{ client, one string }{
		{"redis-benchmark", "request"}, {"wrk", "request"}, {"pgbench", "transaction"},
	} {
		list := strings.ReplaceAll("+ONE/s p50-us p99-us mean-us proxy-us/ONE machine-us/ONE", "ONE", c.one)
		add(Work{Protocol: tcp, Kind: others}, list, "%s", "%s", c.client)
	}
	add(Work{Protocol: tcp, Kind: others}, streamUnits, "iperf3", "iperf3")
	// Datagrams of 200 bytes are what DNS and games send. Each client has so many under way.
	for _, e := range []struct{ conns, window int }{{64, 1}, {1, 32}} {
		add(datagrams, answerUnits("exchange")+" lost-%", "udp-echo/size=200/conns=%d/window=%d",
			"exchange -datagrams -size 200 -conns %d -window %d", e.conns, e.window)
	}
	// This is DNS: clients that each ask once, 64 of them at a time, which is what a socket's usual buffer has room
	// for.
	add(datagrams, answerUnits("exchange")+" lost-%", "udp-oneshot/size=60,200/clients=%d",
		"oneshot -datagrams -size 60 -answer 200 -conns 64 -count %d", 1500)
	// Of blocks that the kernel cuts 10 Gbit/s are five times and more what docker-proxy delivers of it on two cores
	// (1.2 to 1.8), and what direct still delivers without loss. Of single datagrams 1 Gbit/s is three times as much
	// (0.36), and all that one sender can send to direct.
	pour := Work{Protocol: udp, Kind: traffic, toSink: true}
	add(pour, streamUnits+" lost-%", "udp-stream/size=%d/offered=%dG", "pour -size %d -offered %d", 1400, 10)
	add(pour, streamUnits+" lost-%", "udp-single/size=%d/offered=%dG", "pour -single -size %d -offered %d", 1200, 1)
	held(udp, "udp-idle/flows=%d", "flow", "idle -datagrams", mostFlows)
	add(Work{Protocol: udp, Kind: idlePorts, count: 200, ports: 200}, startUnits, "udp-start/ports=%d", "", 200)
	held(tcp, "idle/conns=%d", "conn", "idle", int(min(10_000, descriptors/2-50)))
	return works // what forks for each is a load for long afterwards, so most idle connections are last
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
		"pingpong/size=16384/conns=64,pingpong-ports/size=64/ports=200,crr,bulk/direction=down/conns=8," +
		"bulk/direction=up/conns=1,message-beside/streams=8,idle/conns=2000,start," +
		"local-pingpong/size=64/conns=64,udp-echo/size=200/conns=64,udp-oneshot"},
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
