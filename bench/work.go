package main

import (
	"fmt"
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
	ports   int      // that one proxy serves, where it is more than one
	streams int      // beside it, down and through the same port
	stretch int      // makes the time of a round so many times longer, where that is more than one
	toSink  bool     // where datagrams are not answered
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
	startUnits  = []Unit{{"start-ms", false}, {"pss-kB/port", false}, {"private-kB/port", false},
		{"kernel-kB/port", false}, {"machine-kB/port", false}, {"threads/port", false}}
	lost = Unit{"lost-%", false}
)

// answerUnits are those of work that consists of questions and answers, by what one is.
func answerUnits(one string, more ...Unit) []Unit {
	return append([]Unit{{one + "/s", true}, {"p50-us", false}, {"p99-us", false}, {"p99.9-us", false},
		{"proxy-us/" + one, false}, {"machine-us/" + one, false}, {"load-us/" + one, false}}, more...)
}

func idleUnits(one string) []Unit {
	return []Unit{{"kernel-kB/" + one, false}, {"pss-kB/" + one, false}, {"private-kB/" + one, false},
		{"fds/" + one, false}}
}

// Fits tells whether there is anything to measure: whether the proxy knows the protocol, and is something that dockerd
// can start where that is the work.
func (w Work) Fits(p Proxy) bool {
	return slices.Contains(p.Protocols, w.Protocol) && (w.Kind != idlePorts || p.Name != Direct && !p.Peer)
}

// Traffic tells whether the work is traffic for the time that it is measured.
func (w Work) Traffic() bool { return w.Kind == traffic }

// long tells whether the work takes many seconds, or is about memory, which needs no getting used to.
func (w Work) long() bool { return w.Time != 0 || w.Kind == idle }

// Works lists all work. Of idle connections there are no more than the limit of descriptors is good for.
func Works(descriptors uint64) []Work {
	var works []Work
	for _, size := range []int{64, 1 << 10, 16 << 10, 256 << 10} {
		for _, conns := range []int{1, 64, 1000} {
			works = append(works, pingpong(size, conns))
		}
	}
	works = append(works, pingpong(16<<10, 16), pingpong(256<<10, 16), pingpongPorts(1000), crr(), churn(60_000))
	for _, direction := range []string{"down", "up", "both"} {
		for _, conns := range []int{1, 8, 64} {
			works = append(works, bulk(direction, conns))
		}
	}
	for _, streams := range []int{8, 64} {
		works = append(works, connectsBeside(streams), messageBeside(streams))
	}
	return append(works, idleConns(2000), start(tcp, 200),
		realClientWork("redis-benchmark", "request"), realClientWork("wrk", "request"),
		realClientWork("pgbench", "transaction"), realClientWork("iperf3", ""),
		echo(64, 1), echo(1, 32), oneShot(1500), pour(1400, "10"), pour(1200, "1", "-single"), idleFlows(manyFlows), start(udp, 200),
		idleConns(mostConns(descriptors))) // last: what forks for each is a load for long afterwards
}

// newTraffic is traffic: a client of the load command, and its arguments.
func newTraffic(name, protocol string, units []Unit, client ...string) Work {
	return Work{Name: name, Units: units, Kind: traffic, Protocol: protocol, client: client}
}

func pingpong(size, conns int) Work {
	return newTraffic(fmt.Sprintf("pingpong/size=%d/conns=%d", size, conns), tcp, answerUnits("exchange"),
		"exchange", "-size", strconv.Itoa(size), "-conns", strconv.Itoa(conns))
}

// pingpongPorts has a client on each port of one process that serves them all.
func pingpongPorts(ports int) Work {
	w := newTraffic(fmt.Sprintf("pingpong-ports/size=64/ports=%d", ports), tcp, answerUnits("exchange"),
		"exchange", "-conns", strconv.Itoa(ports))
	w.ports = ports
	return w
}

func bulk(direction string, conns int) Work {
	return newTraffic(fmt.Sprintf("bulk/direction=%s/conns=%d", direction, conns), tcp, streamUnits,
		"bulk", "-direction", direction, "-conns", strconv.Itoa(conns))
}

// connectsBeside is 200 connects at once, again and again, beside streams: the first byte of an answer to each.
func connectsBeside(streams int) Work {
	return beside("connects-beside", streams, []Unit{{"p50-us", false}, {"last-us", false}}, "connects", "-conns", "200")
}

// messageBeside is one client with one small message under way, beside streams.
func messageBeside(streams int) Work {
	return beside("message-beside", streams, []Unit{{"p50-us", false}, {"p99-us", false}, {"exchange/s", true}}, "exchange")
}

// beside takes three times as long as others: where an answer takes 20 ms, a p99 takes time.
func beside(name string, streams int, units []Unit, client ...string) Work {
	w := newTraffic(fmt.Sprintf("%s/streams=%d", name, streams), tcp, append(units, streamUnits...), append(client, "-beside")...)
	w.streams, w.stretch = streams, 3
	return w
}

// crr is connect, send, receive, close.
func crr() Work { return newTraffic("crr/conns=8", tcp, answerUnits("conn"), "crr", "-conns", "8") }

// churn is many short connections in a row, twice as many as the host has source ports for at a time: each leaves one in
// TIME_WAIT (moby#47537).
func churn(count int) Work {
	w := newTraffic(fmt.Sprintf("churn/conns=%d", count), tcp, answerUnits("conn", Unit{"first-quarter-p99-us", false},
		Unit{"last-quarter-p99-us", false}, Unit{"opened", true}, Unit{"failed-%", false}),
		"crr", "-conns", "8", "-warmup", "0", "-churn", "-count", strconv.Itoa(count))
	w.Time = 15 * time.Second // at the most
	return w
}

// echo is datagrams of 200 bytes, which is what DNS and games send. Each client has so many under way.
func echo(clients, window int) Work {
	return newTraffic(fmt.Sprintf("udp-echo/size=200/conns=%d/window=%d", clients, window), udp, answerUnits("exchange", lost),
		"exchange", "-datagrams", "-size", "200", "-conns", strconv.Itoa(clients), "-window", strconv.Itoa(window))
}

// oneShot is DNS: clients that each ask once, 64 of them at a time, which is what a socket's usual buffer has room for.
func oneShot(clients int) Work {
	return newTraffic(fmt.Sprintf("udp-oneshot/size=60,200/clients=%d", clients), udp, answerUnits("exchange", lost),
		"oneshot", "-datagrams", "-size", "60", "-answer", "200", "-conns", "64", "-count", strconv.Itoa(clients))
}

// pour is a stream of datagrams at so many Gbit/s, cut by the kernel from blocks or single. Of blocks that is five times
// and more what docker-proxy delivers of it on two cores (1.2 to 1.8), and what direct still delivers without loss. Of single
// ones it is three times as much (0.36), and all that one sender can send to direct.
func pour(size int, offered string, how ...string) Work {
	name := map[bool]string{true: "udp-stream", false: "udp-single"}[len(how) == 0]
	w := newTraffic(fmt.Sprintf("%s/size=%d/offered=%sG", name, size, offered), udp, append(slices.Clone(streamUnits), lost),
		append(how, "-size", strconv.Itoa(size), "-offered", offered)...)
	w.client, w.toSink = append([]string{"pour"}, w.client...), true
	return w
}

// mostConns is how many connections are to be idle: 10,000, or as many as a proxy can have that takes two descriptors for
// each and a few of its own.
func mostConns(descriptors uint64) int { return int(min(10_000, descriptors/2-50)) }

func idleConns(count int) Work {
	return Work{Name: fmt.Sprintf("idle/conns=%d", count), Units: idleUnits("conn"), Kind: idle, Protocol: tcp,
		count: count, client: []string{"idle"}}
}

// manyFlows is more than a proxy may have unless it is told so.
const manyFlows = 10_000

func idleFlows(count int) Work {
	return Work{Name: fmt.Sprintf("udp-idle/flows=%d", count), Units: idleUnits("flow"), Kind: idle, Protocol: udp,
		count: count, client: []string{"idle", "-datagrams"}}
}

// start starts proxies that then have nothing to do.
func start(protocol string, count int) Work {
	return Work{Name: fmt.Sprintf("%sstart/ports=%d", map[string]string{udp: "udp-"}[protocol], count), Units: startUnits,
		Kind: idlePorts, Protocol: protocol, count: count}
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

// sets by name. Streams of datagrams are not in quick: nginx may be silent for half a second in them. On two cores quick takes some five minutes, and full about an hour and a half.
var sets = map[string]Set{
	"full": {Rounds: 6, Time: 600 * time.Millisecond},
	"quick": {Rounds: 2, Time: 250 * time.Millisecond, Works: "pingpong/size=64/conns=1,pingpong/size=64/conns=64," +
		"pingpong/size=16384/conns=64,pingpong-ports,crr,bulk/direction=down/conns=8,bulk/direction=up/conns=1," +
		"message-beside/streams=8,idle/conns=2000,start,udp-echo/size=200/conns=64,udp-oneshot"},
}

// SetNamed gives a set.
func SetNamed(name string) (Set, error) {
	s, found := sets[name]
	if !found {
		return s, fmt.Errorf("no set is named %q; there are quick and full", name)
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
