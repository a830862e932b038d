package sctp

import (
	"encoding/binary"
	"errors"
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
		p := &pair{}
		u := pump{pair: p, from: &leg{pair: p, errno: unix.ECONNRESET}}
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
