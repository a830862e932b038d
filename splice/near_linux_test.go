package splice

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// afar is a kernel whose peers are so far away.
type afar struct {
	linux
	trip time.Duration
}

func (a afar) roundTrip(int, *unix.TCPInfo) time.Duration { return a.trip }

// mayBound says whether this process and this kernel allow what is tested here.
func mayBound(t *testing.T) bool {
	t.Helper()
	_, fd := socketPair(t)
	defer closeFD(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, nearBuffer) == nil && buffersGrow()
}

// TestNearStreams: the receive buffer of a stream from a near peer stops growing, and its window can be as large. Those of
// distant peers, of small messages, of the leg that only takes, and those that somebody has set are left as they are.
func TestNearStreams(t *testing.T) {
	may := mayBound(t)
	for _, test := range []struct {
		name    string
		kernel  kernel
		streams bool
		set     int // an option, by somebody else
		bound   bool
	}{
		{"near", afar{trip: nearTrip}, true, 0, true},
		{"near, with a send buffer that is set", afar{trip: nearTrip}, true, unix.SO_SNDBUF, true},
		{"distant", afar{trip: nearTrip + 1}, true, 0, false},
		{"unknown", afar{trip: math.MaxInt64}, true, 0, false},
		{"small messages", afar{}, false, 0, false},
		{"set by somebody", afar{}, true, unix.SO_RCVBUF, false},
	} {
		for _, from := range []side{front, back} {
			t.Run(test.name+" from the "+string(from.name()), func(t *testing.T) {
				l, port := testLoop(t, Options{}, test.kernel)
				p, ends := join(t, l, port)
				src, dst := ends.client, ends.backend
				if from == back {
					src, dst = dst, src
				}
				option := func(s side, name int) (value int) {
					l.Do(func() {
						var err error
						value, err = unix.GetsockoptInt(int(p.legs[s].fd), unix.SOL_SOCKET, name)
						rig.Check(t, err)
					})
					return value
				}
				l.Do(func() {
					if test.set != 0 {
						rig.Check(t, unix.SetsockoptInt(int(p.legs[from].fd), unix.SOL_SOCKET, test.set, 64<<10))
					}
				})
				size := 64
				if test.streams {
					size = 16 * copySize
				}
				until := func(what string, enough func(*pump, *unix.TCPInfo) bool) {
					rig.Until(t, what, func() (is bool) {
						go func() {
							_, err := src.Write(make([]byte, size))
							rig.Check(t, err)
						}()
						_, err := io.CopyN(io.Discard, dst, int64(size))
						rig.Must(t, err)
						l.Do(func() {
							info, err := unix.GetsockoptTCPInfo(int(p.legs[from].fd), unix.IPPROTO_TCP, unix.TCP_INFO)
							rig.Check(t, err)
							is = enough(&p.pumps[from], info)
						})
						return is
					})
				}
				until("enough has come", func(pm *pump, _ *unix.TCPInfo) bool {
					return pm.mode == splicing || !test.streams && pm.total >= 10*64
				})
				for s, bound := range map[side]bool{from: test.bound && may, from.other(): false} {
					size, lock := option(s, unix.SO_RCVBUF), option(s, unix.SO_BUF_LOCK)&unix.SOCK_RCVBUF_LOCK
					if got := lock != 0 && size == 2*nearBuffer; got != bound {
						t.Errorf("the leg of the %s has a buffer of %d bytes, locked %d; want it bound: %v", s.name(), size, lock, bound)
					}
				}
				if test.bound && may {
					until("its window has grown", func(_ *pump, info *unix.TCPInfo) bool { return info.Rcv_ssthresh > nearWindow/4 })
				}
			})
		}
	}
}

// TestGrownBufferIsKept: one that is larger than what a near stream gets, and that nobody has set, is not made smaller. Its
// window is bounded.
func TestGrownBufferIsKept(t *testing.T) {
	elsewhere := rig.Namespace(t)
	may := mayBound(t)
	const grown = 3 * nearBuffer
	rig.Must(t, elsewhere.Sysctl("ipv4/tcp_rmem", fmt.Sprintf("4096 %d %[1]d", grown)))
	l, _ := testLoop(t, Options{}, afar{})
	rig.Must(t, elsewhere.Do(func() error {
		fd, errno := linux{}.socket(unix.AF_INET)
		if errno != 0 {
			return errno
		}
		defer closeFD(fd)
		l.Do(func() { l.boundReceive(fd) })
		size, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		lock, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
		clamp, err3 := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP)
		if may && clamp != nearWindow {
			t.Errorf("its window may be of %d bytes, want %d", clamp, nearWindow)
		}
		if locked := lock&unix.SOCK_RCVBUF_LOCK != 0; size != grown || locked != may {
			t.Errorf("a buffer of %d bytes is one of %d, locked: %v, want %v", grown, size, locked, may)
		}
		return errors.Join(err1, err2, err3)
	}))
}

// TestBuffersGrow: what the kernel says of itself is what is read.
func TestBuffersGrow(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		rig.Must(t, err)
		return string(text)
	}
	sizes, moderate := read("tcp_rmem"), read("tcp_moderate_rcvbuf")
	if got, want := buffersGrow(), growPast(sizes, moderate); got != want {
		t.Errorf("growPast: %v, want %v of %q and %q", got, want, sizes, moderate)
	}
}

// TestRoundTrip: what the kernel has measured of a peer on this host, and nothing of a socket without one.
func TestRoundTrip(t *testing.T) {
	_, fd := socketPair(t)
	defer closeFD(fd)
	var info unix.TCPInfo
	trip := (linux{}).roundTrip(fd, &info)
	if want, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || trip.Microseconds() != int64(want.Min_rtt) {
		t.Errorf("a round trip over loopback is %v, want %d us (%v)", trip, want.Min_rtt, err)
	}
	alone, errno := linux{}.socket(unix.AF_INET)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer closeFD(alone)
	if trip := (linux{}).roundTrip(alone, &info); trip < time.Hour {
		t.Errorf("a round trip of a socket without a peer is %v", trip)
	}
	if trip := (linux{}).roundTrip(-1, &info); trip != math.MaxInt64 {
		t.Errorf("a round trip of no socket is %v", trip)
	}
}

// TestGrowPast: what an administrator has set is neither exceeded nor made smaller.
func TestGrowPast(t *testing.T) {
	for _, test := range []struct {
		sizes, moderate string
		want            bool
	}{
		{"4096\t131072\t6291456\n", "1\n", true},
		{"4096\t131072\t6291456\n", "0\n", false},
		{"4096\t131072\t6291456\n", "", false},
		{"4096\t131072\t4194304\n", "1\n", false},
		{"4096\t131072\t4194305\n", "1\n", true},
		{"4096\t4194304\t6291456\n", "1\n", true},
		{"4096\t4194305\t6291456\n", "1\n", false},
		{"4096\t131072\n", "1\n", false},
		{"", "1\n", false},
	} {
		if got := growPast(test.sizes, test.moderate); got != test.want {
			t.Errorf("growPast(%q, %q) = %v, want %v", test.sizes, test.moderate, got, test.want)
		}
	}
}
