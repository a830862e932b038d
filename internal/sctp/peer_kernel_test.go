//go:build linux && sctp_kernel

package sctp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	testrig "github.com/portsplice/portsplice/internal/rig"
)

// The peers of the tests use plain blocking sockets, and other control messages than the relay does: they send
// with SCTP_SNDRCV and receive with SCTP_RCVINFO.

// patienceOfPeers bounds every blocking call of a peer: a test fails then, and does not hang.
const patienceOfPeers = 10 * time.Second

// recvRcvInfo is SCTP_RECVRCVINFO, which makes the kernel describe a message by SCTP_RCVINFO.
const recvRcvInfo = 32

// rcvInfo is the kernel's struct sctp_rcvinfo.
type rcvInfo struct {
	stream, ssn, flags uint16
	_                  uint16
	ppid               uint32
	tsn, cumTSN        uint32
	context            uint32
	assoc              int32
}

// parcel is a message as an application sees it.
type parcel struct {
	Data      []byte
	Stream    uint16
	Unordered bool
	PPID      uint32
}

// newParcel makes one of n bytes that no other parcel of the test has.
func newParcel(n int, stream uint16) parcel {
	p := parcel{Data: make([]byte, n), Stream: stream, Unordered: rand.IntN(2) == 0, PPID: rand.Uint32()}
	for i := 0; i < n; i += 8 {
		for j, v := 0, rand.Uint64(); j < 8 && i+j < n; j++ {
			p.Data[i+j] = byte(v >> (8 * j))
		}
	}
	return p
}

// String leaves out the bytes: there may be a million.
func (p parcel) String() string {
	return fmt.Sprintf("%d bytes on stream %d, PPID %#x, unordered %t", len(p.Data), p.Stream, p.PPID, p.Unordered)
}

func (p parcel) equal(q parcel) bool {
	return p.Stream == q.Stream && p.PPID == q.PPID && p.Unordered == q.Unordered && bytes.Equal(p.Data, q.Data)
}

// peer is one side of an association, or a socket that listens for one.
type peer struct {
	t  *testing.T
	fd int
}

// newPeer opens a socket that offers and accepts the given number of streams.
func newPeer(t *testing.T, family int, streams uint16) *peer {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	p := &peer{t: t, fd: fd}
	t.Cleanup(p.close)
	conn := sctp.NewSCTPConn(fd, nil)
	p.must("SCTP_INITMSG", conn.SetInitMsg(int(streams), int(streams), 0, 0))
	p.must("SCTP_RECVRCVINFO", unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, recvRcvInfo, 1))
	p.must("SCTP_NODELAY", unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, sctp.SCTP_NODELAY, 1))
	p.must("SO_SNDBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*maxMessage))
	p.must("SO_RCVBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20))
	limit := unix.NsecToTimeval(patienceOfPeers.Nanoseconds())
	p.must("SO_RCVTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	p.must("SO_SNDTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	return p
}

func (p *peer) must(op string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", op, err)
	}
}

// listen opens a listening socket on a free port of the address.
func listen(t *testing.T, addr string, streams uint16) (*peer, netip.AddrPort) {
	t.Helper()
	family, bound, err := sockaddr(netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, family, streams)
	p.must("bind", unix.Bind(p.fd, bound))
	p.must("listen", unix.Listen(p.fd, 256))
	name, err := unix.Getsockname(p.fd)
	p.must("getsockname", err)
	return p, addrPort(name)
}

// dial opens an association. What the socket was made for stays open until the end of the test, or close.
func dial(t *testing.T, to netip.AddrPort, streams uint16) *peer {
	t.Helper()
	family, _, err := sockaddr(to)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, family, streams)
	p.must("connect", p.connect(to))
	return p
}

func (p *peer) connect(to netip.AddrPort) error {
	p.t.Helper()
	_, addr, err := sockaddr(to)
	p.must("address", err)
	err = unix.Connect(p.fd, addr)
	if errors.Is(err, unix.EINTR) { // it goes on; to call again would be EALREADY
		p.poll(unix.POLLOUT, patienceOfPeers)
		_, err = linux{}.connected(p.fd)
	}
	return err
}

// poll waits for the event, and tells whether it came.
func (p *peer) poll(event int16, bound time.Duration) bool {
	p.t.Helper()
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: event}}
	var n int
	p.must("poll", retry(func() (err error) { n, err = unix.Poll(fds, int(bound.Milliseconds())); return err }))
	return n > 0
}

func (p *peer) accept() *peer {
	p.t.Helper()
	var fd int
	p.must("accept", retry(func() (err error) { fd, _, err = unix.Accept4(p.fd, unix.SOCK_CLOEXEC); return err }))
	accepted := &peer{t: p.t, fd: fd}
	p.t.Cleanup(accepted.close)
	// Buffers and options are inherited, time-outs are not.
	limit := unix.NsecToTimeval(patienceOfPeers.Nanoseconds())
	p.must("SO_RCVTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	p.must("SO_SNDTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	return accepted
}

// close ends the association with a SHUTDOWN.
func (p *peer) close() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}

// abort ends the association with an ABORT.
func (p *peer) abort() {
	p.t.Helper()
	p.must("SO_LINGER", unix.SetsockoptLinger(p.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	p.close()
}

func (p *peer) shutdown() {
	p.t.Helper()
	p.must("shutdown", unix.Shutdown(p.fd, unix.SHUT_WR))
}

func (p *peer) status() *sctp.Status {
	p.t.Helper()
	status, err := sctp.NewSCTPConn(p.fd, nil).GetStatus()
	p.must("SCTP_STATUS", err)
	return status
}

// trySend sends one message, and waits for room if block.
func (p *peer) trySend(m parcel, block bool) error {
	control := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(sctp.SndRcvInfo{}))))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = unix.IPPROTO_SCTP, sctp.SCTP_CMSG_SNDRCV
	header.SetLen(len(control))
	info := (*sctp.SndRcvInfo)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
	info.Stream, info.PPID = m.Stream, m.PPID
	if m.Unordered {
		info.Flags = sctp.SCTP_UNORDERED
	}
	flags := unix.MSG_NOSIGNAL
	if !block {
		flags |= unix.MSG_DONTWAIT
	}
	return retry(func() error { return unix.Sendmsg(p.fd, m.Data, control, nil, flags) })
}

func (p *peer) send(m parcel) {
	p.t.Helper()
	if err := p.trySend(m, true); err != nil {
		p.t.Fatalf("send %v: %v", m, err)
	}
}

// tryReceive reads up to MSG_EOR. The error is io.EOF when the other side has shut down.
func (p *peer) tryReceive() (parcel, error) {
	var m parcel
	data, control := make([]byte, 64<<10), make([]byte, 256)
	for {
		var n, oobn, flags int
		err := retry(func() (err error) {
			n, oobn, flags, _, err = unix.Recvmsg(p.fd, data, control, 0)
			return err
		})
		switch {
		case err != nil:
			return m, os.NewSyscallError("recvmsg", err)
		case n == 0:
			return m, io.EOF
		case flags&sctp.MSG_NOTIFICATION != 0:
			return m, errors.New("a notification, which nobody subscribed to")
		}
		m.Data = append(m.Data, data[:n]...)
		if flags&unix.MSG_EOR == 0 {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:oobn])
		if err != nil || len(messages) != 1 || messages[0].Header.Type != sctp.SCTP_CMSG_RCVINFO {
			return m, fmt.Errorf("control messages %v, error %w", messages, err)
		}
		info := (*rcvInfo)(unsafe.Pointer(&messages[0].Data[0]))
		m.Stream, m.PPID, m.Unordered = info.stream, info.ppid, info.flags&sctp.SCTP_UNORDERED != 0
		return m, nil
	}
}

func (p *peer) receive() parcel {
	p.t.Helper()
	m, err := p.tryReceive()
	if err != nil {
		p.t.Fatalf("receive: %v (after %d bytes)", err, len(m.Data))
	}
	return m
}

// expect receives the next message and compares it with the one that was sent.
func (p *peer) expect(want parcel) {
	p.t.Helper()
	if got := p.receive(); !got.equal(want) {
		p.t.Fatalf("received %v; want %v, with the same bytes", got, want)
	}
}

// expectEnd receives, and wants the given error instead of a message.
func (p *peer) expectEnd(want error) {
	p.t.Helper()
	if m, err := p.tryReceive(); !errors.Is(err, want) {
		p.t.Fatalf("received %v, %v; want %v", m, err, want)
	}
}

// report is one call of Options.Report.
type report struct {
	op              string
	client, backend netip.AddrPort
	err             error
}

// rig is a port that is served, on a group of its own, and what it reported.
type rig struct {
	*Port
	addr    netip.AddrPort
	reports chan report
}

// publish opens a listening socket as dockerd does: with default options.
func publish(t *testing.T, addr string) (fd int, bound netip.AddrPort) {
	t.Helper()
	family, to, err := sockaddr(netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
	if err != nil {
		t.Fatal(err)
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err == nil {
		err = unix.Listen(fd, 256)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd, nameOf(t, fd)
}

// nameOf is the address that a socket is bound to.
func nameOf(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return addrPort(name)
}

// serve serves what publish returned.
func serve(t *testing.T, fd int, front, backend netip.AddrPort, o Options) *rig {
	t.Helper()
	group, err := eventloop.New(eventloop.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(group.Close)
	r := &rig{addr: front, reports: make(chan report, 1000)}
	o.Report = func(op string, client, backend netip.AddrPort, err error) {
		_ = r.Stats() // a lock that is held while this is called would show
		r.reports <- report{op, client, backend, err}
	}
	if r.Port, err = New(group, fd, backend, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Abort()
		if got := r.Stats().Active; got != 0 {
			t.Errorf("%d pairs are active after Abort", got)
		}
	})
	return r
}

// startRelay serves a free port of the address.
func startRelay(t *testing.T, addr string, backend netip.AddrPort, o Options) *rig {
	t.Helper()
	fd, front := publish(t, addr)
	return serve(t, fd, front, backend, o)
}

// standStill stops the first loop, as SIGSTOP would, until the function that it gives is called.
func (r *rig) standStill(t *testing.T) (goOn func()) {
	t.Helper()
	stopped, over := make(chan struct{}), make(chan struct{})
	if !r.group.First().Post(func() { close(stopped); <-over }) {
		t.Fatal("the loop has ended")
	}
	<-stopped
	goOn = sync.OnceFunc(func() { close(over) })
	t.Cleanup(goOn)
	return goOn
}

// open makes a pair: a client, and the backend's side of it.
func (r *rig) open(t *testing.T, backend *peer) (client, accepted *peer) {
	t.Helper()
	client = dial(t, r.addr, 10)
	return client, backend.accept()
}

// expectRelaying waits until the relay, too, knows that its backend has answered. An abort before that is a failed dial.
func (r *rig) expectRelaying(t *testing.T) {
	t.Helper()
	testrig.Until(t, "the relay has the backend's answer", func() bool {
		relaying := true
		for on, pairs := range r.byLoop() {
			on.Do(func() {
				relaying = relaying && !slices.ContainsFunc(pairs, func(p *pair) bool { return p.state == dialing })
			})
		}
		return relaying
	})
}

// expectReport waits for the next report of the given operation, and checks its cause.
func (r *rig) expectReport(t *testing.T, op string, cause error) {
	t.Helper()
	late := time.After(patienceOfPeers)
	for {
		select {
		case got := <-r.reports:
			if got.op != op {
				continue
			}
			if !errors.Is(got.err, cause) || got.backend != r.settings.Load().backend {
				t.Errorf("reported %v of %v; want %v of %v", got.err, got.backend, cause, r.settings.Load().backend)
			}
			return
		case <-late:
			t.Fatalf("nothing was reported; want %s, %v", op, cause)
		}
	}
}

// expectStats waits until the counters are what they should be.
func (r *rig) expectStats(t *testing.T, want Stats) {
	t.Helper()
	var diff string
	eventually(t, func() bool {
		diff = cmp.Diff(want, r.Stats())
		return diff == ""
	}, func() string { return "stats (-want +got):\n" + diff })
}

// eventually waits for the condition, and fails with what describe says if it does not come.
func eventually(t *testing.T, condition func() bool, describe func() string) {
	t.Helper()
	deadline := time.After(patienceOfPeers)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(describe())
		}
	}
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
