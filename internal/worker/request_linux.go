package worker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// origin says where a port's socket came from.
type origin int

const (
	none   origin = iota // there is none yet
	bound                // by dockerd (-use-listen-fd)
	lost                 // by a worker that has died
	served               // bound by dockerd, and a worker that has died has served it
)

// request is what a shim begins with. The descriptors are the receiver's to close.
type request struct {
	arguments, environment []string

	stderr int
	socket int // -1 if there is none
	origin origin
}

// longest is the longest request: what is longer is served without a worker.
const longest = 64 << 10

// buffers are for requests: a worker has many in its first second, and then none for days.
var buffers = sync.Pool{New: func() any { return new([longest]byte) }}

// errTooLong is what a shim is told.
var errTooLong = declined{fmt.Errorf("the arguments and variables are longer than %d bytes", longest)}

// errCut is what a shim is told whose descriptors could not be received.
var errCut = errors.New("the worker has no descriptors left (RLIMIT_NOFILE)")

// receive receives the first message, and what came along.
func receive(conn *net.UnixConn) (message []byte, fds []int, err error) {
	buffer := buffers.Get().(*[longest]byte)
	defer buffers.Put(buffer)
	var control [64]byte // for two descriptors, and to spare
	n, controls, flags, _, err := conn.ReadMsgUnix(buffer[:], control[:])
	if err != nil {
		return nil, nil, err
	}
	fds, err = descriptors(control[:controls])
	switch {
	case err != nil:
	case flags&unix.MSG_CTRUNC != 0:
		err = errCut
	case flags&unix.MSG_TRUNC != 0:
		err = errTooLong
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return bytes.Clone(buffer[:n]), fds, nil
}

func descriptors(control []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	for i := range messages {
		some, _ := unix.ParseUnixRights(&messages[i]) // what is not that has none
		fds = append(fds, some...)
	}
	return fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was done with it
	}
}

// drop closes the port's socket, if there is one.
func (r *request) drop() {
	if r.origin != none {
		closeAll([]int{r.socket})
		r.socket, r.origin = -1, none
	}
}

// parse makes a request of a message.
func parse(message []byte, fds []int) (*request, error) {
	all := strings.Split(strings.TrimSuffix(string(message), "\x00"), "\x00")
	r := request{socket: -1}
	var count int
	if _, err := fmt.Sscanf(all[0], "serve %x %x", &count, &r.origin); err != nil || count < 0 || count > len(all)-1 ||
		r.origin < none || r.origin > served {
		return nil, fmt.Errorf("not a request: %q", all[0])
	}
	want := 1
	if r.origin != none {
		want = 2
	}
	if len(fds) != want {
		return nil, fmt.Errorf("%d descriptors came with a request for %d", len(fds), want)
	}
	r.arguments, r.environment = all[1:1+count], all[1+count:]
	r.stderr = fds[0]
	if want == 2 {
		r.socket = fds[1]
	}
	return &r, nil
}
