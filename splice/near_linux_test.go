package splice

import (
	"io"
	"math"
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

// TestNearStreams: the receive buffer of a stream from a near peer stops growing. Those of distant peers, of small
// messages, of the leg that only takes, and those that somebody has set are left as they are.
func TestNearStreams(t *testing.T) {
	for _, test := range []struct {
		name    string
		trip    time.Duration
		streams bool
		set     int // bytes, by somebody else
		bound   bool
	}{
		{"near", nearTrip, true, 0, true},
		{"distant", nearTrip + 1, true, 0, false},
		{"unknown", math.MaxInt64, true, 0, false},
		{"small messages", 0, false, 0, false},
		{"set by somebody", 0, true, 4 * nearBuffer, false},
	} {
		for _, from := range []side{front, back} {
			t.Run(test.name+" from the "+string(from.name()), func(t *testing.T) {
				l, port := testLoop(t, Options{}, afar{trip: test.trip})
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
					if test.set > 0 {
						rig.Check(t, unix.SetsockoptInt(int(p.legs[from].fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, test.set))
					}
				})
				size := 64
				if test.streams {
					size = 16 * copySize
				}
				rig.Until(t, "enough has come", func() (enough bool) {
					go func() {
						_, err := src.Write(make([]byte, size))
						rig.Check(t, err)
					}()
					_, err := io.CopyN(io.Discard, dst, int64(size))
					rig.Must(t, err)
					l.Do(func() {
						pm := &p.pumps[from]
						enough = pm.mode == splicing || !test.streams && pm.total >= 10*64
					})
					return enough
				})
				want := map[side]bool{from: test.bound && receiveLimit() > 2*nearBuffer, from.other(): false}
				for s, bound := range want {
					size, lock := option(s, unix.SO_RCVBUF), option(s, unix.SO_BUF_LOCK)
					if got := lock != 0 && size == 2*nearBuffer; got != bound {
						t.Errorf("the leg of the %s has a buffer of %d bytes, locked %d; want it bound: %v", s.name(), size, lock, bound)
					}
				}
			})
		}
	}
}

// TestRoundTrip: what the kernel has measured of a peer on this host, and nothing of a socket without one.
func TestRoundTrip(t *testing.T) {
	_, fd := socketPair(t)
	defer closeFD(fd)
	var info unix.TCPInfo
	if trip := (linux{}).roundTrip(fd, &info); trip > time.Minute {
		t.Errorf("a round trip over loopback is %v", trip)
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

// TestGrowsTo: what an administrator has set is never exceeded.
func TestGrowsTo(t *testing.T) {
	for _, test := range []struct {
		sizes, moderate string
		want            int
	}{
		{"4096\t131072\t6291456\n", "1\n", 6291456},
		{"4096\t131072\t6291456\n", "0\n", 0},
		{"4096\t131072\t6291456\n", "", 0},
		{"", "1\n", 0},
	} {
		if got := growsTo(test.sizes, test.moderate); got != test.want {
			t.Errorf("growsTo(%q, %q) = %d, want %d", test.sizes, test.moderate, got, test.want)
		}
	}
}
