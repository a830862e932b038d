package sctp

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// controlMessage builds one control message as the kernel lays it out.
func controlMessage(level, kind int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	header := make([]byte, 0, unix.CmsgLen(0))
	if unix.SizeofCmsghdr == 16 {
		header = binary.NativeEndian.AppendUint64(header, uint64(unix.CmsgLen(len(data))))
	} else {
		header = binary.NativeEndian.AppendUint32(header, uint32(unix.CmsgLen(len(data))))
	}
	header = binary.NativeEndian.AppendUint32(header, uint32(level))
	header = binary.NativeEndian.AppendUint32(header, uint32(kind))
	copy(b, header)
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// sndRcvInfo is the struct sctp_sndrcvinfo of the kernel: four 16-bit fields, six 32-bit ones.
func sndRcvInfo(stream, flags uint16, ppid []byte) []byte {
	var b []byte
	for _, field := range []uint16{stream, 0xaaaa, flags, 0} {
		b = binary.NativeEndian.AppendUint16(b, field)
	}
	b = append(b, ppid...)
	return append(b, make([]byte, 5*4)...)
}

func TestParseDelivery(t *testing.T) {
	ppid := []byte{0, 0, 0, 46}
	info := sndRcvInfo(7, 0, ppid)
	sndrcv := func(data []byte) []byte { return controlMessage(unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDRCV, data) }
	stamp := controlMessage(unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 16))
	raw := binary.NativeEndian.Uint32(ppid)

	for _, test := range []struct {
		name    string
		control []byte
		want    delivery
		err     error
	}{
		{name: "ordered", control: sndrcv(info), want: delivery{stream: 7, ppid: raw}},
		{name: "unordered among other flags", control: sndrcv(sndRcvInfo(65535, sctp.SCTP_UNORDERED|0xfffe, ppid)),
			want: delivery{stream: 65535, ppid: raw, unordered: true}},
		{name: "other flags only", control: sndrcv(sndRcvInfo(0, 0xfffe, ppid)), want: delivery{ppid: raw}},
		{name: "behind another control message", control: append(stamp, sndrcv(info)...),
			want: delivery{stream: 7, ppid: raw}},
		{name: "nothing", err: errNoDelivery},
		{name: "another control message only", control: stamp, err: errNoDelivery},
		{name: "another level", control: controlMessage(unix.SOL_SOCKET, sctp.SCTP_CMSG_SNDRCV, info), err: errNoDelivery},
		{name: "info cut short", control: sndrcv(info[:len(info)-1]), err: errNoDelivery},
		{name: "header cut short", control: sndrcv(info)[:unix.SizeofCmsghdr-1], err: errNoDelivery},
		{name: "length beyond the buffer", control: sndrcv(info)[:unix.SizeofCmsghdr+8], err: unix.EINVAL},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseDelivery(test.control)
			if !errors.Is(err, test.err) {
				t.Fatalf("got error %v; want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(delivery{})); diff != "" {
				t.Errorf("delivery (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	ppid := []byte{1, 2, 3, 4}
	d := delivery{stream: 513, unordered: true, ppid: binary.NativeEndian.Uint32(ppid)}

	var data []byte // struct sctp_sndinfo
	data = binary.NativeEndian.AppendUint16(data, 513)
	data = binary.NativeEndian.AppendUint16(data, sctp.SCTP_UNORDERED)
	data = append(data, ppid...)
	data = append(data, make([]byte, 8)...) // context, association

	var space [sendControlSpace]byte
	for i := range space {
		space[i] = 0xff // what the recvmsg before has left
	}
	want := controlMessage(unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDINFO, data)
	if diff := cmp.Diff(want, d.encode(&space)); diff != "" {
		t.Errorf("control message (-want +got):\n%s", diff)
	}
}

// notification builds one with the given type, followed by 16-bit fields.
func notification(kind sctp.SCTPNotificationType, fields ...uint16) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(8+2*len(fields)))
	for _, field := range fields {
		b = binary.NativeEndian.AppendUint16(b, field)
	}
	return b
}

func TestParseNotification(t *testing.T) {
	change := func(state sctp.SCTPState) []byte {
		return notification(sctp.SCTP_ASSOC_CHANGE, uint16(state), 0, 10, 10, 1, 0)
	}
	for _, test := range []struct {
		name         string
		notification []byte
		want         event
	}{
		{"up", change(sctp.SCTP_COMM_UP), eventNone},
		{"lost", change(sctp.SCTP_COMM_LOST), eventLost},
		{"restart", change(sctp.SCTP_RESTART), eventRestart},
		{"not started", change(sctp.SCTP_CANT_STR_ASSOC), eventLost},
		{"shutdown complete", change(sctp.SCTP_SHUTDOWN_COMP), eventComplete},
		{"message given up", notification(sctp.SCTP_PARTIAL_DELIVERY_EVENT, 0, 0, 1, 0, 3, 0, 0, 0), eventGivenUp},
		{"sender dry", notification(sctp.SCTP_SENDER_DRY_EVENT, 1, 0), eventDry},
		{"peer shuts down", notification(sctp.SCTP_SHUTDOWN_EVENT, 1, 0), eventNone},
		{"of no interest", notification(sctp.SCTP_PEER_ADDR_CHANGE, 1, 0), eventNone},
		{"no state", notification(sctp.SCTP_ASSOC_CHANGE), eventNone},
		{"cut short", change(sctp.SCTP_COMM_LOST)[:7], eventNone},
		{"nothing", nil, eventNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parseNotification(test.notification); got != test.want {
				t.Errorf("got event %d; want %d", got, test.want)
			}
		})
	}
}

func FuzzParseDelivery(f *testing.F) {
	info := sndRcvInfo(7, sctp.SCTP_UNORDERED, []byte{0, 0, 0, 46})
	good := controlMessage(unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDRCV, info)
	f.Add(good)
	f.Add(append(controlMessage(unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 16)), good...))
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, control []byte) {
		d, err := parseDelivery(control)
		if err != nil {
			if d != (delivery{}) {
				t.Errorf("an error, %v, and a delivery: %+v", err, d)
			}
			return
		}
		var space [sendControlSpace]byte
		if got := len(d.encode(&space)); got != unix.CmsgSpace(sizeofSndInfo) {
			t.Errorf("%+v encodes to %d bytes", d, got)
		}
	})
}

func FuzzParseNotification(f *testing.F) {
	f.Add(notification(sctp.SCTP_ASSOC_CHANGE, uint16(sctp.SCTP_COMM_LOST), 0, 10, 10, 1, 0))
	f.Add(notification(sctp.SCTP_SENDER_DRY_EVENT, 1, 0))
	f.Add(notification(sctp.SCTP_ASSOC_CHANGE))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, p []byte) {
		if got := parseNotification(p); got < eventNone || got > eventDry {
			t.Errorf("event %d does not exist", got)
		}
	})
}
