package sctp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// Kinds of slots that a script is made of.
const (
	slotPiece  = iota // of a message that goes on
	slotEnd           // the last piece of a message
	slotNotice        // a notification that says nothing to the pump
	slotGivenUp
	slotLost
	slotShutdown
	slotUndescribed // a last piece without SCTP_SNDRCV
	slotKinds
)

// fill puts into a batch what recvmmsg would.
func (b *batch) fill(i, kind, size int) {
	h := &b.heads[i]
	h.Hdr.Flags, h.Hdr.Controllen = 0, 0
	put := func(data []byte, flags int32) {
		h.Len = uint32(copy(b.data[i][:], data))
		h.Hdr.Flags = flags
	}
	switch kind {
	case slotNotice:
		put(notification(sctp.SCTP_PEER_ADDR_CHANGE, 1, 0), sctp.MSG_NOTIFICATION|unix.MSG_EOR)
	case slotGivenUp:
		put(notification(sctp.SCTP_PARTIAL_DELIVERY_EVENT, 0, 0), sctp.MSG_NOTIFICATION|unix.MSG_EOR)
	case slotLost:
		put(notification(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_COMM_LOST)), sctp.MSG_NOTIFICATION|unix.MSG_EOR)
	case slotShutdown:
		put(nil, 0)
	default:
		for j := range size {
			b.data[i][j] = byte(i + j)
		}
		h.Len = uint32(size)
		if kind == slotPiece {
			return
		}
		h.Hdr.Flags = unix.MSG_EOR
		if kind == slotEnd {
			info := sndRcvInfo(uint16(i), sctp.SCTP_UNORDERED, []byte{0, 0, 0, byte(i)})
			h.Hdr.SetControllen(copy(b.controls[i][:], controlMessage(unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDRCV, info)))
		}
	}
}

// outgoing is what sendmmsg would be given for a message.
type outgoing struct {
	Data   []byte
	Stream uint16
}

// outgoing reads the messages that wait, as the kernel would.
func (b *batch) outgoing() (all []outgoing) {
	for _, h := range b.waiting() {
		var m outgoing
		for _, piece := range unsafe.Slice(h.Hdr.Iov, h.Hdr.Iovlen) {
			m.Data = append(m.Data, unsafe.Slice(piece.Base, piece.Len)...)
		}
		control := unsafe.Slice(h.Hdr.Control, h.Hdr.Controllen)
		m.Stream = binary.NativeEndian.Uint16(control[unix.CmsgLen(0)+int(sndStream):])
		all = append(all, m)
	}
	return all
}

// FuzzSort compares what becomes of a script of slots, two bytes for each, with a plain model.
func FuzzSort(f *testing.F) {
	f.Add([]byte{slotEnd, 1, slotPiece, 255, slotPiece, 7, slotEnd, 9, slotShutdown, 0})
	f.Add([]byte{slotPiece, 1, slotGivenUp, 0, slotEnd, 3, slotLost, 0, slotEnd, 1})
	f.Add([]byte{slotPiece, 1, slotNotice, 0, slotUndescribed, 3})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBatch()
		p := &pair{port: newPort(nil, linux{}, -1, netip.AddrPort{}, Options{})}
		u := pump{pair: p, from: &leg{pair: p, errno: unix.ECONNRESET}, to: &leg{pair: p}}
		var want []outgoing
		var open []byte
		var wantErr error
		n := min(len(script)/2, batchDepth)
		var err error
		for i := 0; i < n && err == nil; i++ {
			kind, size := int(script[2*i])%slotKinds, 1+int(script[2*i+1])*7
			b.fill(i, kind, size)
			err = u.sort(b, i)
			switch kind {
			case slotGivenUp:
				open = nil
			case slotLost:
				wantErr = unix.ECONNRESET
			case slotShutdown:
				wantErr = errShutdown
			case slotPiece, slotEnd:
				open = append(open, b.data[i][:size]...)
			case slotUndescribed:
				wantErr = errNoDelivery
			}
			if kind == slotEnd {
				want = append(want, outgoing{slices.Clone(open), uint16(i)})
				open = nil
			}
		}
		if !errors.Is(err, wantErr) {
			t.Errorf("got error %v; want %v", err, wantErr)
		}
		if diff := cmp.Diff(want, b.outgoing()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		var rest []byte
		if b.openPieces(func(piece []byte) { rest = append(rest, piece...) }); wantErr == nil && string(rest) != string(open) {
			t.Errorf("%d bytes of an open message; want %d", len(rest), len(open))
		}
	})
}

var errNoMemory = errors.New("no memory")

// enough is memory for one message.
func enough() *memory { return withLimit(maxMessage) }

func withLimit(limit int64) *memory {
	var m memory
	m.limit.Store(limit)
	return &m
}

// fill adds n bytes to m in pieces as large as its room.
func fill(m *message, n int) error {
	for n > 0 {
		if !m.grow() {
			return errNoMemory
		}
		room := m.data[len(m.data):cap(m.data)]
		piece := min(n, len(room))
		for i := range piece {
			room[i] = byte(len(m.data) + i)
		}
		if err := m.extend(piece); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

func TestMessageGrows(t *testing.T) {
	for _, n := range []int{1, firstRoom - minRoom, firstRoom, firstRoom + 1, maxMessage} {
		m := getMessage(enough())
		if err := fill(m, n); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i)
		}
		if !bytes.Equal(m.data, want) {
			t.Errorf("%d bytes did not stay what they were", n)
		}
		m.grow()
		m.room()
		if room := int(m.piece.Len); room < minRoom {
			t.Errorf("%d bytes: room for %d more; want %d at least", n, room, minRoom)
		}
		m.release()
	}
}

func TestMessageTooLarge(t *testing.T) {
	if err := fill(getMessage(enough()), maxMessage+1); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("got %v; want EMSGSIZE", err)
	}
}

func TestReleasedMessageIsEmpty(t *testing.T) {
	m := getMessage(enough())
	if err := fill(m, 10); err != nil {
		t.Fatal(err)
	}
	m.release()
	if len(m.data) != 0 {
		t.Errorf("%d bytes left", len(m.data))
	}
}

// TestMemory: what messages grow by is bounded, but for one of them, which another one follows.
func TestMemory(t *testing.T) {
	const budget = 3 * firstRoom
	of := withLimit(budget)
	grown, first, second := getMessage(of), getMessage(of), getMessage(of)
	if err := fill(grown, 4*firstRoom-minRoom); err != nil { // takes the whole budget
		t.Fatal(err)
	}
	if got := of.held.Load(); got != budget {
		t.Fatalf("%d bytes are held; want %d", got, budget)
	}
	if err := fill(first, maxMessage); err != nil {
		t.Errorf("one message was not let go beyond the budget: %v", err)
	}
	if err := fill(second, firstRoom+1); !errors.Is(err, errNoMemory) || !second.hungry {
		t.Errorf("a second message went beyond the budget: %v", err)
	}
	first.release()
	if !second.grow() || second.hungry {
		t.Error("the next message was not let go beyond the budget")
	}
	second.release()
	grown.release()
	if of.held.Load() != 0 || of.beyond.Load() {
		t.Errorf("%d bytes are held, and one goes beyond: %t; want nothing", of.held.Load(), of.beyond.Load())
	}
}
