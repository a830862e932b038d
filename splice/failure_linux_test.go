package splice

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// brokenPipe is a destination that takes so many writes, half of what there is, and then fails without a cause.
type brokenPipe struct {
	linux
	source, takes int
}

func (b *brokenPipe) splice(from, _, n int) (int, unix.Errno) {
	switch {
	case from == b.source:
		return n, 0
	case b.takes > 0:
		b.takes--
		return n / 2, 0
	}
	return 0, unix.EPIPE
}

// TestFailureAmidASplice: EPIPE stands for an orderly end that came before the reset, but not when a splice had moved a
// part before: that one may have met the reset, and has dropped what it was.
func TestFailureAmidASplice(t *testing.T) {
	for _, test := range []struct {
		name  string
		takes int
		want  unix.Errno
	}{
		{"at once", 0, unix.EPIPE},
		{"after a part", 1, unix.ECONNRESET},
		{"after two parts", 2, unix.ECONNRESET},
	} {
		t.Run(test.name, func(t *testing.T) {
			const source, destination = -1, -2
			l := newLoop(&Engine{kernel: &brokenPipe{source: source, takes: test.takes}}, group(t).First())
			defer func() { l.pipes.trim(len(l.pipes.free)) }()
			var p pump
			v := p.step(&share{loop: l}, way{src: source, dst: destination, policy: Always}, sliceBytes)
			if v != destinationFailed || l.errno != test.want {
				t.Errorf("verdict %d and %v, want %d and %v", v, l.errno, destinationFailed, test.want)
			}
			p.on(l, v)
		})
	}
}

// TestWhatIsReported: resets, however they are told, are the peers' own, and not worth a line.
func TestWhatIsReported(t *testing.T) {
	for errno, want := range map[unix.Errno]int{
		unix.ECONNRESET: 0, unix.EPIPE: 0, unix.ENOTCONN: 0, unix.ETIMEDOUT: 1, unix.EHOSTUNREACH: 1, unix.ENOMEM: 1,
	} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			reports := 0
			o := Options{Report: func(string, netip.AddrPort, netip.AddrPort, error) { reports++ }}
			l, port := testLoop(t, o, linux{})
			p, _ := join(t, l, port)
			l.Do(func() { p.fail(front, errno) })
			if aborted := port.Stats().Aborted; reports != want || aborted != 1 {
				t.Errorf("%d reports and %d aborted, want %d and 1", reports, aborted, want)
			}
		})
	}
}
