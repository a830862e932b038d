package bench

import (
	"fmt"
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

	kind   kind
	count  int      // of idle connections or ports
	client []string // arguments of the load command, for traffic
}

// kind is a way to measure.
type kind int

const (
	messages    kind = iota // traffic for the server's port for messages
	streams                 // traffic for its port for streams
	connections             // that are idle
	ports                   // that are idle, and how long it took to get there
)

var (
	exchangeUnits = []Unit{{"exchange/s", true}, {"p50-us", false}, {"p99-us", false},
		{"proxy-us/exchange", false}, {"machine-us/exchange", false}}
	connUnits = []Unit{{"conn/s", true}, {"p50-us", false}, {"p99-us", false},
		{"proxy-us/conn", false}, {"machine-us/conn", false}}
	streamUnits = []Unit{{"Gbit/s", true}, {"proxy-s/GB", false}, {"machine-s/GB", false}}
	idleUnits   = []Unit{{"kernel-kB/conn", false}, {"pss-kB/conn", false}, {"fds/conn", false}}
	startUnits  = []Unit{{"start-ms", false}, {"pss-kB/port", false}, {"private-kB/port", false},
		{"kernel-kB/port", false}, {"threads/port", false}}
)

// others is measured with all traffic and is no unit of any work: what all but client, server and proxy took of the
// CPUs meanwhile, threads of the kernel included.
const others = "others-%"

// Fits tells whether there is anything to measure: no proxy does not start.
func (w Work) Fits(p Proxy) bool { return w.kind != ports || p.Name != Direct }

// Works lists all work.
func Works() []Work {
	works := []Work{
		pingpong(64, 1), pingpong(64, 64), pingpong(16<<10, 16), pingpong(256<<10, 16),
		{Name: "crr/conns=8", Units: connUnits, kind: messages, client: []string{"crr", "-conns", "8"}},
	}
	for _, direction := range []string{"down", "up", "both"} {
		works = append(works, bulk(direction, 1), bulk(direction, 8))
	}
	return append(works,
		Work{Name: "idle/conns=2000", Units: idleUnits, kind: connections, count: 2000},
		Work{Name: "start/ports=50", Units: startUnits, kind: ports, count: 50})
}

func pingpong(size, conns int) Work {
	return Work{
		Name:   fmt.Sprintf("pingpong/size=%d/conns=%d", size, conns),
		Units:  exchangeUnits,
		kind:   messages,
		client: []string{"pingpong", "-size", strconv.Itoa(size), "-conns", strconv.Itoa(conns)},
	}
}

func bulk(direction string, conns int) Work {
	return Work{
		Name:   fmt.Sprintf("bulk/direction=%s/conns=%d", direction, conns),
		Units:  streamUnits,
		kind:   streams,
		client: []string{"bulk", "-direction", direction, "-conns", strconv.Itoa(conns)},
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
