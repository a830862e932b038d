package sourceport

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// span is ports from first to last.
type span struct{ first, last uint16 }

// ports is what may be bound: a part of the kernel's range, but for what is reserved.
type ports struct {
	all      int    // how many the kernel chooses from
	first    uint16 // of the part
	size     int
	reserved []span
}

// rereadAfter is for how long what /proc says is believed.
const rereadAfter = time.Second

// host is what this network namespace has.
var host struct {
	sync.Mutex
	ports
	read time.Time
}

// usable gives what may be bound now.
func usable(now time.Time) ports {
	host.Lock()
	defer host.Unlock()
	if host.read.IsZero() || now.Sub(host.read) >= rereadAfter {
		host.read = now
		// One range for IPv6, too (ip-sysctl.rst). What cannot be read is empty: nothing is bound.
		low, high := parseRange(read("ip_local_port_range"))
		host.ports = newPorts(low, high, parseSpans(read("ip_local_reserved_ports")))
	}
	return host.ports
}

func read(name string) string {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/" + name)
	return string(text)
}

// newPorts takes the last quarter of a range.
func newPorts(low, high uint16, reserved []span) ports {
	if high <= low {
		return ports{}
	}
	all := int(high-low) + 1
	size := all / 4
	return ports{all: all, first: high - uint16(size) + 1, size: size, reserved: reserved}
}

// port gives the port at a place of the part. It reports false for one that is reserved.
func (p ports) port(place int) (port uint16, free bool) {
	port = p.first + uint16(place%p.size)
	return port, !slices.ContainsFunc(p.reserved, func(r span) bool { return r.first <= port && port <= r.last })
}

// parseRange reads two numbers, as in ip_local_port_range; zeros if there are none.
func parseRange(text string) (low, high uint16) {
	spans := parseSpans(strings.Join(strings.Fields(text), "-"))
	if len(spans) != 1 {
		return 0, 0
	}
	return spans[0].first, spans[0].last
}

// parseSpans reads a list such as "1,2-4,10-10", as the kernel writes it (proc_do_large_bitmap in kernel/sysctl.c). What
// is not a range is left out.
func parseSpans(list string) (spans []span) {
	for item := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		f, errFirst := strconv.ParseUint(first, 10, 16)
		l, errLast := strconv.ParseUint(last, 10, 16)
		if errFirst == nil && errLast == nil {
			spans = append(spans, span{uint16(f), uint16(l)})
		}
	}
	return spans
}
