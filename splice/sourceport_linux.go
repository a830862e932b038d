package splice

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A proxy is the one that ends connections to the backend when clients end theirs, so it is left with the
// TIME_WAIT of each, for a minute. When the kernel chooses the source port of a connection it looks for one that
// has none towards this backend. Near 28,000 connections a minute that search takes milliseconds, and then there
// is no port left (moby#47537).
//
// A socket that was bound to a port before it connects is spared the search, and may take over a TIME_WAIT if
// timestamps are on, whatever tcp_tw_reuse says (__inet_check_established in net/ipv4/inet_hashtables.c calls
// tcp_twsk_unique without twp). So while many connections are made, the ports of a part of the range are bound in
// turn: the next one is always the one that has rested longest.
//
// A port that is bound is one that the kernel gives to nobody else, to whatever destination, which is why this
// is not done while connections are few and not with the whole range.
const (
	// churnWindow is how long TIME_WAIT lasts (TCP_TIMEWAIT_LEN in include/net/tcp.h).
	churnWindow = 60 * time.Second
	// churnDials is how many dials in churnWindow are many: a seventh of the default range, where a search
	// still finds a port at its second try at the latest, on average.
	churnDials = 4096
	// maxSourcePorts is how many ports are used in turn, and a quarter of the range at most.
	maxSourcePorts = 8192
)

// sourcePorts chooses the source ports of one port's connections to its backend. Its zero value leaves that to the
// kernel until there is churn.
type sourcePorts struct {
	window      time.Duration // when the current window began, since the loop's start
	dials       int           // in the current window
	churn       bool          // there were many in the last window, or are in this one
	first, size uint16        // of the part of the range
	next        uint16        // offset from first
	seed        int           // tells the loops of a process apart
	reserved    []portRange   // for services that begin later: not to be bound
}

// portRange is ports from first to last.
type portRange struct{ first, last uint16 }

// use counts a dial and says whether its socket is to be bound.
func (s *sourcePorts) use(now time.Duration) bool {
	if now-s.window >= churnWindow {
		s.churn = s.dials >= churnDials && now-s.window < 2*churnWindow
		s.window, s.dials = now, 0
	}
	s.dials++
	if s.dials >= churnDials && !s.churn {
		s.churn = true
		if s.size == 0 {
			s.choose(localPortRange())
			s.reserved = reservedPorts()
		}
	}
	return s.churn && s.size > 0
}

// choose takes a part of the range. Different processes and loops take different ones, so that they
// stay out of each other's way.
func (s *sourcePorts) choose(low, high uint16) {
	if high <= low {
		return
	}
	all := int(high-low) + 1
	s.size = uint16(min(maxSourcePorts, all/4))
	if parts := all / max(1, int(s.size)); parts > 0 {
		s.first = low + uint16((os.Getpid()+s.seed)%parts)*s.size
	}
}

// bind binds fd to the port that has rested longest. It reports false when no port of a few was to be had: the
// kernel is to choose then.
func (s *sourcePorts) bind(fd, family int) bool {
	const attempts = 8
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) != nil {
		return false
	}
	for range attempts {
		port := s.take()
		if address := anyAddress(family, port); bind(fd, &address) == 0 {
			return true
		}
	}
	return false
}

// take gives the port that has rested longest and is not reserved, if not all are.
func (s *sourcePorts) take() (port uint16) {
	for range s.size {
		port = s.first + s.next
		s.next = (s.next + 1) % s.size
		if !slices.ContainsFunc(s.reserved, func(r portRange) bool { return r.first <= port && port <= r.last }) {
			return port
		}
	}
	return 0 // the kernel chooses
}

// localPortRange reads the ports that the kernel chooses from; zeros when they cannot be read.
func localPortRange() (low, high uint16) {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // for IPv6 too (ip-sysctl.rst)
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0, 0
	}
	r := parsePorts(fields[0] + "-" + fields[1])
	if len(r) != 1 {
		return 0, 0
	}
	return r[0].first, r[0].last
}

// reservedPorts reads the ports that the kernel does not choose.
func reservedPorts() []portRange {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports") // none if it cannot be read
	return parsePorts(strings.TrimSpace(string(text)))
}

// parsePorts reads a list such as "1,2-4,10-10", as the kernel writes it (proc_do_large_bitmap in kernel/sysctl.c). What
// is not a range is left out.
func parsePorts(list string) (ranges []portRange) {
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		f, errFirst := strconv.ParseUint(first, 10, 16)
		l, errLast := strconv.ParseUint(last, 10, 16)
		if errFirst == nil && errLast == nil {
			ranges = append(ranges, portRange{uint16(f), uint16(l)})
		}
	}
	return ranges
}
