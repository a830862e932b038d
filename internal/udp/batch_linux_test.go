package udp

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/udp/flows"
)

// received is a message as it comes in: of a flow, so many bytes, and in a block if segment says so.
type received struct {
	flow, size, segment int
	tos                 uint8
}

func TestOutbox(t *testing.T) {
	one := func(sizes ...int) (all []received) {
		for _, size := range sizes {
			all = append(all, received{size: size})
		}
		return all
	}
	for _, c := range []struct {
		name  string
		limit int
		in    []received
		want  string // the sizes of datagrams; messages are apart by spaces
	}{
		{"nothing", maxBlock, nil, ""},
		{"one", maxBlock, one(200), "200"},
		{"equal", maxBlock, one(200, 200, 200), "200+200+200"},
		{"the last may be shorter", maxBlock, one(200, 200, 100), "200+200+100"},
		{"but ends the block", maxBlock, one(200, 100, 100), "200+100 100"},
		{"a longer one begins another", maxBlock, one(100, 200, 200), "100 200+200"},
		{"empty ones stand alone", maxBlock, one(0, 0), "0 0"},
		{"an empty one ends a block", maxBlock, one(200, 200, 0, 200), "200+200 0 200"},
		{"and begins none", maxBlock, one(0, 200), "0 200"},
		{"of two flows", maxBlock, []received{{0, 200, 0, 0}, {1, 200, 0, 0}, {1, 200, 0, 0}, {0, 200, 0, 0}}, "200 200+200 200"},
		{"a block as it came", maxBlock, []received{{0, 600, 200, 0}}, "200+200+200"},
		{"with a shorter last", maxBlock, []received{{0, 500, 200, 0}}, "200+200+100"},
		{"and one more", maxBlock, []received{{0, 500, 200, 0}, {0, 100, 0, 0}}, "200+200+100 100"},
		{"joined with the next", maxBlock, []received{{0, 400, 200, 0}, {0, 500, 200, 0}}, "200+200+200+200+100"},
		{"after a single one", maxBlock, []received{{0, 200, 0, 0}, {0, 400, 200, 0}}, "200+200+200"},
		{"of smaller ones", maxBlock, []received{{0, 200, 0, 0}, {0, 200, 100, 0}}, "200 100+100"},
		{"of one, as it may be told", maxBlock, []received{{0, 200, 200, 0}, {0, 200, 0, 0}}, "200+200"},
		{"of more than it has", maxBlock, []received{{0, 200, 400, 0}}, "200"},
		{"of a size below zero", maxBlock, []received{{0, 200, -1, 0}}, "200"},
		{"above the limit", 199, one(200, 200), "200 200"},
		{"at the limit", 200, one(200, 200), "200+200"},
		{"a block above the limit stays one", 100, []received{{0, 400, 200, 0}}, "200+200"},
		{"of one traffic class", maxBlock, []received{{0, 200, 0, 1}, {0, 200, 0, 1}}, "200+200"},
		{"of two", maxBlock, []received{{0, 200, 0, 0}, {0, 200, 0, 1}, {0, 400, 200, 1}, {0, 200, 0, 2}}, "200 200+200+200 200"},
		{"more than IPv4 carries", maxBlock, one(30000, 30000, 30000), "30000+30000 30000"},
		{"more than there may be", maxBlock, []received{{0, 640, 10, 0}, {0, 10, 0, 0}},
			strings.Repeat("10+", 63) + "10 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o outbox
			all := []*flow{newTestFlow(0), newTestFlow(1)}
			for _, r := range c.in {
				o.put(all[r.flow], toBackend, make([]byte, r.size), r.segment, r.tos, c.limit)
			}
			if got := contents(&o); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func newTestFlow(port uint32) *flow {
	return &flow{
		settings: &settings{port: new(Port), family: unix.AF_INET},
		Tracking: flows.Tracking[flowKey]{Key: flowKey{client: peer{port: port}}},
	}
}

// contents are the sizes of the datagrams in an outbox, as its messages tell the kernel.
func contents(o *outbox) string {
	var messages []string
	for i := range o.length {
		m := o.complete(i, true)
		total, segment := 0, segmentOf(m)
		for _, iovec := range unsafe.Slice(m.Hdr.Iov, m.Hdr.Iovlen) {
			total += int(iovec.Len)
		}
		if segment == 0 {
			segment = max(total, 1)
		}
		var sizes []string
		for ; total > segment; total -= segment {
			sizes = append(sizes, fmt.Sprint(segment))
		}
		messages = append(messages, strings.Join(append(sizes, fmt.Sprint(total)), "+"))
	}
	return strings.Join(messages, " ")
}

// segmentOf is the size of a message's datagrams if it is a block.
func segmentOf(m *unix.Mmsghdr) int {
	control := unsafe.Slice(m.Hdr.Control, m.Hdr.Controllen)
	for len(control) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			panic(err) // it is what this package made
		}
		if header.Level == unix.SOL_UDP && header.Type == unix.UDP_SEGMENT {
			return int(data[0]) | int(data[1])<<8
		}
		control = rest
	}
	return 0
}

// The datagrams of a block, taken one by one, are the bytes that were put in, in order.
func TestOutboxDatagrams(t *testing.T) {
	var o outbox
	f := newTestFlow(0)
	first, second := pattern(500), pattern(250)[:50]
	o.put(f, toBackend, first[:400], 100, 0, maxBlock)
	o.put(f, toBackend, first[400:], 0, 0, maxBlock)
	o.put(f, toBackend, second, 0, 0, maxBlock)
	o.complete(0, true)
	var all [][]byte
	for iovec := range o.datagrams(0) {
		all = append(all, unsafe.Slice(iovec.Base, iovec.Len))
	}
	if len(all) != 6 || !bytes.Equal(slices.Concat(all...), slices.Concat(first, second)) {
		t.Errorf("%d datagrams %.10q, want 6", len(all), all)
	}
}

func TestDepth(t *testing.T) {
	var d depth
	turn := uint32(10)
	step := func(got, want int) {
		t.Helper()
		turn++
		if asked := d.ask(turn); asked != want {
			t.Fatalf("turn %d: asked for %d, want %d", turn, asked, want)
		}
		d.got(got)
	}
	step(1, 1)
	turn++ // nothing in that one
	step(1, 1)
	step(8, 8) // in the very next turn
	step(32, 32)
	step(9, 32)
	for range patient + 1 {
		step(8, 32)
	}
	step(2, 8)
	for range patient {
		step(1, 8)
	}
	step(2, 8) // begins to count anew
	for range patient + 1 {
		step(0, 8)
	}
	turn++
	step(1, 1)
}

// A socket that has one datagram in each turn, as a client of 64 whose backend answers at once, is asked for more ever
// more rarely. One burst, and it is asked for more at the first hint again.
func TestDepthComesBack(t *testing.T) {
	const turns = 10_000
	var d depth
	more := 0
	for turn := range uint32(turns) {
		if d.ask(turn+1) > 1 {
			more++
		}
		d.got(1)
	}
	if more > turns/50 {
		t.Errorf("%d of %d receives asked for more than the one there was", more, turns)
	}
	turn := uint32(turns)
	for asked := 1; asked == 1; d.got(min(asked, 4)) { // a burst begins
		turn++
		asked = d.ask(turn)
	}
	if turn > turns+mostHints+1 {
		t.Errorf("a burst was found after %d turns", turn-turns)
	}
	for range patient + 1 {
		turn++
		d.ask(turn)
		d.got(1)
	}
	if turn++; d.ask(turn) == 1 {
		turn++
		d.got(1)
	}
	if asked := d.ask(turn); asked == 1 {
		t.Error("after a burst the first hint is not tried")
	}
}

// The pages of a burst are given back: a relay that is idle again has none.
func TestArenaGivesPagesBack(t *testing.T) {
	a := newArena()
	t.Cleanup(a.release)
	for i := range batch {
		a.buffer(i)[maxDatagram-1] = 1
	}
	a.noteWritten(0, os.Getpagesize())
	if a.written {
		t.Error("the first page is not kept")
	}
	a.noteWritten(0, os.Getpagesize()+1)
	if !a.written {
		t.Error("more than a page is kept")
	}
	a.trim()
	for i := range batch {
		if a.buffer(i)[maxDatagram-1] != 0 {
			t.Fatalf("buffer %d was kept", i)
		}
	}
	if a.written {
		t.Error("it is to be trimmed again")
	}
}
