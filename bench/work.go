package bench

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

	count  int      // of idle connections, flows or ports
	client []string // arguments of the load command, or the name of somebody else's
}

// Kind is a way to measure.
type Kind string

const (
	messages Kind = "messages" // traffic for the server's port for messages and datagrams
	streams  Kind = "streams"  // traffic for its port for streams, of bytes or datagrams
	idle     Kind = "idle"     // connections or flows
	ports    Kind = "ports"    // that are idle, and how long it took to get there
	others   Kind = "others"   // traffic of a client that somebody else wrote
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
)

// answerUnits are those of work that consists of questions and answers, by what one is.
func answerUnits(one string) []Unit {
	return []Unit{{one + "/s", true}, {"p50-us", false}, {"p99-us", false}, {"p99.9-us", false},
		{"proxy-us/" + one, false}, {"machine-us/" + one, false}, {"load-us/" + one, false}}
}

func idleUnits(one string) []Unit {
	return []Unit{{"kernel-kB/" + one, false}, {"pss-kB/" + one, false}, {"private-kB/" + one, false},
		{"fds/" + one, false}}
}

var lost = Unit{"lost-%", false}

// Fits tells whether there is anything to measure: whether the proxy knows the protocol, and is something that dockerd
// can start where that is the work.
func (w Work) Fits(p Proxy) bool {
	return slices.Contains(p.Protocols, w.Protocol) && (w.Kind != ports || p.Name != Direct && !p.Peer)
}

// Traffic tells whether the work is traffic for the time that it is measured.
func (w Work) Traffic() bool { return w.Kind == messages || w.Kind == streams }

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
	works = append(works, pingpong(16<<10, 16), pingpong(256<<10, 16), crr(), churn(60_000))
	for _, direction := range []string{"down", "up", "both"} {
		for _, conns := range []int{1, 8, 64} {
			works = append(works, bulk(direction, conns))
		}
	}
	return append(works, idleConns(2000), idlePorts(tcp, 200),
		realClientWork("redis-benchmark", "request"), realClientWork("wrk", "request"),
		realClientWork("pgbench", "transaction"), realClientWork("iperf3", ""),
		echo(64, 1), echo(1, 32), pour(1400), idleFlows(manyFlows), idlePorts(udp, 200),
		idleConns(mostConns(descriptors))) // last: what forks for each is a load for long afterwards
}

func pingpong(size, conns int) Work {
	return Work{
		Name:     fmt.Sprintf("pingpong/size=%d/conns=%d", size, conns),
		Units:    answerUnits("exchange"),
		Kind:     messages,
		Protocol: tcp,
		client:   []string{"pingpong", "-size", strconv.Itoa(size), "-conns", strconv.Itoa(conns)},
	}
}

func bulk(direction string, conns int) Work {
	return Work{
		Name:     fmt.Sprintf("bulk/direction=%s/conns=%d", direction, conns),
		Units:    streamUnits,
		Kind:     streams,
		Protocol: tcp,
		client:   []string{"bulk", "-direction", direction, "-conns", strconv.Itoa(conns)},
	}
}

// crr is connect, send, receive, close.
func crr() Work {
	return Work{
		Name:     "crr/conns=8",
		Units:    answerUnits("conn"),
		Kind:     messages,
		Protocol: tcp,
		client:   []string{"crr", "-conns", "8"},
	}
}

// churn is many short connections in a row, twice as many as the host has source ports for at a time: each leaves one in
// TIME_WAIT (moby#47537).
func churn(count int) Work {
	return Work{
		Name: fmt.Sprintf("churn/conns=%d", count),
		Units: append(answerUnits("conn"), Unit{"first-quarter-p99-us", false}, Unit{"last-quarter-p99-us", false},
			Unit{"opened", true}, Unit{"failed-%", false}),
		Kind:     messages,
		Protocol: tcp,
		client:   []string{"crr", "-conns", "8", "-warmup", "0", "-churn", "-count", strconv.Itoa(count)},
		Time:     15 * time.Second, // at the most
	}
}

// echo is datagrams of 200 bytes, which is what DNS and games send. Each client has so many under way.
func echo(clients, window int) Work {
	return Work{
		Name:     fmt.Sprintf("udp-echo/size=200/conns=%d/window=%d", clients, window),
		Units:    append(answerUnits("exchange"), lost),
		Kind:     messages,
		Protocol: udp,
		client:   []string{"echo", "-size", "200", "-conns", strconv.Itoa(clients), "-window", strconv.Itoa(window)},
	}
}

// offered is the rate at which datagrams are streamed, in Gbit/s: five times and more what docker-proxy delivers of it on
// two cores (1.2 to 1.8), and what direct still delivers without loss.
const offered = "10"

// pour is a stream of datagrams that the kernel cuts from blocks.
func pour(size int) Work {
	return Work{
		Name:     fmt.Sprintf("udp-stream/size=%d/offered=%sG", size, offered),
		Units:    append(slices.Clone(streamUnits), lost),
		Kind:     streams,
		Protocol: udp,
		client:   []string{"pour", "-size", strconv.Itoa(size), "-offered", offered},
	}
}

// mostConns is how many connections are to be idle: 10,000, or as many as a proxy can have that takes two descriptors for
// each and a few of its own.
func mostConns(descriptors uint64) int { return int(min(10_000, descriptors/2-50)) }

func idleConns(count int) Work {
	return Work{
		Name:     fmt.Sprintf("idle/conns=%d", count),
		Units:    idleUnits("conn"),
		Kind:     idle,
		Protocol: tcp,
		count:    count,
		client:   []string{"idle"},
	}
}

// idlePorts starts proxies that then have nothing to do.
func idlePorts(protocol string, count int) Work {
	return Work{
		Name:     fmt.Sprintf("%sstart/ports=%d", map[string]string{udp: "udp-"}[protocol], count),
		Units:    startUnits,
		Kind:     ports,
		Protocol: protocol,
		count:    count,
	}
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

// manyFlows is more than a proxy may have unless it is told so.
const manyFlows = 10_000

func idleFlows(count int) Work {
	return Work{
		Name:     fmt.Sprintf("udp-idle/flows=%d", count),
		Units:    idleUnits("flow"),
		Kind:     idle,
		Protocol: udp,
		count:    count,
		client:   []string{"flows"},
	}
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
