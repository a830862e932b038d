package splice

import (
	"os"
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
}

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
		port := s.first + s.next
		s.next = (s.next + 1) % s.size
		if address := anyAddress(family, port); bind(fd, &address) == 0 {
			return true
		}
	}
	return false
}

// localPortRange reads the ports that the kernel chooses from; zeros when they cannot be read.
func localPortRange() (low, high uint16) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // for IPv6 too (ip-sysctl.rst)
	if err != nil {
		return 0, 0
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0, 0
	}
	l, errLow := strconv.ParseUint(fields[0], 10, 16)
	h, errHigh := strconv.ParseUint(fields[1], 10, 16)
	if errLow != nil || errHigh != nil {
		return 0, 0
	}
	return uint16(l), uint16(h)
}
