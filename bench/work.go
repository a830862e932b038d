package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Unit is something measured and which way is better.
type Unit struct {
	Name string
	More bool // is better
}

// Values are what one measurement gave, by the name of the unit. What does not apply, such as the CPU time of no
// proxy, is not there.
type Values map[string]float64

// Work is something that proxies are made to do.
type Work struct {
	Name  string // as in pingpong/size=64/conns=1
	Units []Unit // the first is the one that counts most

	kind     kind
	protocol string
	count    int      // of idle connections, flows or ports
	client   []string // arguments of the load command
}

// kind is a way to measure.
type kind int

const (
	messages kind = iota // traffic for the server's port for messages and datagrams
	streams              // traffic for its port for streams, of bytes or datagrams
	idle                 // connections or flows
	ports                // that are idle, and how long it took to get there
)

// The protocols.
const (
	tcp = "tcp"
	udp = "udp"
)

var (
	streamUnits = []Unit{{"Gbit/s", true}, {"proxy-s/GB", false}, {"machine-s/GB", false}, {"load-s/GB", false}}
	startUnits  = []Unit{{"start-ms", false}, {"pss-kB/port", false}, {"private-kB/port", false},
		{"kernel-kB/port", false}, {"threads/port", false}}
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

// others is measured with all traffic and is no unit of any work: what all but client, server and proxy took of the
// CPUs meanwhile, threads of the kernel included.
const others = "others-%"

// Fits tells whether there is anything to measure: whether the proxy knows the protocol, and is something that dockerd
// can start where that is the work.
func (w Work) Fits(p Proxy) bool {
	return slices.Contains(p.Protocols, w.protocol) && (w.kind != ports || p.Name != Direct && !p.Peer)
}

// Works lists all work.
func Works() []Work {
	works := []Work{
		pingpong(64, 1), pingpong(64, 64), pingpong(16<<10, 16), pingpong(256<<10, 16),
		{Name: "crr/conns=8", Units: answerUnits("conn"), protocol: tcp, client: []string{"crr", "-conns", "8"}},
	}
	for _, direction := range []string{"down", "up", "both"} {
		works = append(works, bulk(direction, 1), bulk(direction, 8))
	}
	return append(works,
		Work{Name: "idle/conns=2000", Units: idleUnits("conn"), protocol: tcp, kind: idle,
			client: []string{"idle"}, count: 2000},
		Work{Name: "start/ports=50", Units: startUnits, protocol: tcp, kind: ports, count: 50},
		echo(64, 1), echo(1, 32), pour(1400), idleFlows(10_000),
		Work{Name: "udp-start/ports=50", Units: startUnits, protocol: udp, kind: ports, count: 50})
}

func pingpong(size, conns int) Work {
	return Work{
		Name:     fmt.Sprintf("pingpong/size=%d/conns=%d", size, conns),
		Units:    answerUnits("exchange"),
		protocol: tcp,
		client:   []string{"pingpong", "-size", strconv.Itoa(size), "-conns", strconv.Itoa(conns)},
	}
}

func bulk(direction string, conns int) Work {
	return Work{
		Name:     fmt.Sprintf("bulk/direction=%s/conns=%d", direction, conns),
		Units:    streamUnits,
		kind:     streams,
		protocol: tcp,
		client:   []string{"bulk", "-direction", direction, "-conns", strconv.Itoa(conns)},
	}
}

// echo is datagrams of 200 bytes, which is what DNS and games send. Each client has so many under way.
func echo(clients, window int) Work {
	return Work{
		Name:     fmt.Sprintf("udp-echo/size=200/conns=%d/window=%d", clients, window),
		Units:    append(answerUnits("exchange"), lost),
		protocol: udp,
		client:   []string{"echo", "-size", "200", "-conns", strconv.Itoa(clients), "-window", strconv.Itoa(window)},
	}
}

// offered is the rate at which datagrams are streamed, in Gbit/s: eight times what docker-proxy delivers of it on two
// cores (1.2), and what direct still delivers without loss.
const offered = "10"

// pour is a stream of datagrams that the kernel cuts from blocks.
func pour(size int) Work {
	return Work{
		Name:     fmt.Sprintf("udp-stream/size=%d/offered=%sG", size, offered),
		Units:    append(slices.Clone(streamUnits), lost),
		kind:     streams,
		protocol: udp,
		client:   []string{"pour", "-size", strconv.Itoa(size), "-offered", offered},
	}
}

func idleFlows(count int) Work {
	return Work{
		Name:     fmt.Sprintf("udp-idle/flows=%d", count),
		Units:    idleUnits("flow"),
		kind:     idle,
		protocol: udp,
		count:    count,
		client:   []string{"flows"},
	}
}

// Select gives the works that a list separated by commas names: each by its name or the beginning of it up to a
// slash. Everything is selected by nothing.
func Select(list string) ([]Work, error) {
	if list == "" {
		return Works(), nil
	}
	var selected []Work
	for name := range strings.SplitSeq(list, ",") {
		before := len(selected)
		for _, w := range Works() {
			if strings.HasPrefix(w.Name+"/", name+"/") {
				selected = append(selected, w)
			}
		}
		if len(selected) == before {
			return nil, fmt.Errorf("no work is named %q", name)
		}
	}
	return selected, nil
}
