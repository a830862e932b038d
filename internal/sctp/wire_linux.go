package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// controlSpace is room for the control messages of one recvmsg or sendmsg. The kernel sends one of 48 bytes
// (SCTP_SNDRCV with its header); the rest is for what a listener that came from elsewhere may have switched on.
const controlSpace = 256

// sendControlSpace is room for the one control message of a sendmsg: SCTP_SNDINFO, 16 bytes, behind its header.
const sendControlSpace = 32

// What Linux calls the fields of its control messages is in the types of the sctp library; only the places of
// the fields are taken from there, since a control buffer need not be aligned for the type.
const (
	sizeofSndRcvInfo = int(unsafe.Sizeof(sctp.SndRcvInfo{}))
	rcvStream        = unsafe.Offsetof(sctp.SndRcvInfo{}.Stream)
	rcvFlags         = unsafe.Offsetof(sctp.SndRcvInfo{}.Flags)
	rcvPPID          = unsafe.Offsetof(sctp.SndRcvInfo{}.PPID)

	sizeofSndInfo = int(unsafe.Sizeof(sctp.SndInfo{}))
	sndStream     = unsafe.Offsetof(sctp.SndInfo{}.SID)
	sndFlags      = unsafe.Offsetof(sctp.SndInfo{}.Flags)
	sndPPID       = unsafe.Offsetof(sctp.SndInfo{}.PPID)
)

var errNoDelivery = errors.New("message without SCTP_SNDRCV")

// delivery is what SCTP says of a message besides its bytes.
type delivery struct {
	stream    uint16
	unordered bool
	ppid      uint32 // the four bytes of the DATA chunk, in their order: opaque
}

// parseDelivery finds the delivery among the control messages of a recvmsg.
func parseDelivery(control []byte) (delivery, error) {
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return delivery{}, fmt.Errorf("control message: %w", err)
		}
		if header.Level == unix.IPPROTO_SCTP && header.Type == sctp.SCTP_CMSG_SNDRCV && len(data) >= sizeofSndRcvInfo {
			return delivery{
				stream:    binary.NativeEndian.Uint16(data[rcvStream:]),
				unordered: binary.NativeEndian.Uint16(data[rcvFlags:])&sctp.SCTP_UNORDERED != 0,
				ppid:      binary.NativeEndian.Uint32(data[rcvPPID:]),
			}, nil
		}
		control = rest
	}
	return delivery{}, errNoDelivery
}

// encode writes the delivery as the control message of a sendmsg, and returns the part of space it fills.
func (d delivery) encode(space *[sendControlSpace]byte) []byte {
	control := space[:unix.CmsgSpace(sizeofSndInfo)]
	clear(control)
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level = unix.IPPROTO_SCTP
	header.Type = sctp.SCTP_CMSG_SNDINFO
	header.SetLen(unix.CmsgLen(sizeofSndInfo))

	info := control[unix.CmsgLen(0):]
	binary.NativeEndian.PutUint16(info[sndStream:], d.stream)
	if d.unordered {
		binary.NativeEndian.PutUint16(info[sndFlags:], sctp.SCTP_UNORDERED)
	}
	binary.NativeEndian.PutUint32(info[sndPPID:], d.ppid)
	return control
}

// event is what a notification means to a pump.
type event int

const (
	eventNone     event = iota // nothing to act on
	eventLost                  // the association is over, and not by a shutdown
	eventRestart               // the peer has begun the association anew, and knows nothing of what was before
	eventComplete              // the association is over: both sides have shut down
	eventGivenUp               // the message of which a part was delivered will not be completed
	eventDry                   // everything sent has been acknowledged
)

// Every notification begins with a header; in an SCTP_ASSOC_CHANGE the new state, 16 bits, is next.
const (
	sizeofNotification = int(unsafe.Sizeof(sctp.NotificationHeader{}))
	assocState         = sizeofNotification
	sizeofAssocState   = 2
)

// parseNotification tells what the notification at the head of p means. One too short to tell means nothing.
func parseNotification(p []byte) event {
	if len(p) < sizeofNotification {
		return eventNone
	}
	switch sctp.SCTPNotificationType(binary.NativeEndian.Uint16(p)) {
	case sctp.SCTP_ASSOC_CHANGE:
		if len(p) < assocState+sizeofAssocState {
			return eventNone
		}
		return assocEvent(sctp.SCTPState(binary.NativeEndian.Uint16(p[assocState:])))
	case sctp.SCTP_PARTIAL_DELIVERY_EVENT: // it has one meaning only: aborted
		return eventGivenUp
	case sctp.SCTP_SENDER_DRY_EVENT:
		return eventDry
	}
	return eventNone
}

func assocEvent(state sctp.SCTPState) event {
	switch state {
	case sctp.SCTP_COMM_UP:
		return eventNone
	case sctp.SCTP_SHUTDOWN_COMP:
		return eventComplete
	case sctp.SCTP_RESTART:
		return eventRestart
	default: // SCTP_COMM_LOST
		return eventLost
	}
}
