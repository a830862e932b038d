package load

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/usage"
	"github.com/portsplice/portsplice/internal/status"
)

// What the first byte of a stream asks of the server. That of a message is 0.
const (
	sendDown   = 'd'
	receiveUp  = 'u'
	sendBoth   = 'b'
	tellCounts = 'c'
)

var directions = map[string]byte{"down": sendDown, "up": receiveUp, "both": sendBoth}

// streamServer counts the bytes of all its streams, and of datagrams that are not answered.
type streamServer struct{ received, sent atomic.Int64 }

// serve serves one stream to its end, which is the client's to explain. Of its bytes n have arrived, of which the first
// says what it asks for.
func (s *streamServer) serve(conn net.Conn, what byte, n int) {
	defer func() { _ = conn.Close() }()
	switch what {
	case sendDown:
		_ = fill(conn, &s.sent)
	case receiveUp:
		s.received.Add(int64(n - 1))
		_ = drain(conn, &s.received)
	case sendBoth:
		s.received.Add(int64(n - 1))
		go func() { _ = fill(conn, &s.sent) }() // ends with the connection
		_ = drain(conn, &s.received)
	case tellCounts:
		_ = s.tell(conn, n)
	}
}

// tell answers each byte, n of which have arrived: a server that is kept busy reads more than one question at a time.
func (s *streamServer) tell(conn net.Conn, n int) (err error) {
	for questions := make([]byte, 16); err == nil; n, err = conn.Read(questions) {
		for range n {
			if err := binary.Write(conn, binary.BigEndian, []int64{s.received.Load(), s.sent.Load()}); err != nil {
				return err
			}
		}
	}
	return err
}

// chunk is what is read or written at a time.
const chunk = 128 << 10

func fill(conn net.Conn, count *atomic.Int64) error {
	for b := make([]byte, chunk); ; {
		n, err := conn.Write(b)
		count.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

func drain(conn net.Conn, count *atomic.Int64) error {
	for b := make([]byte, chunk); ; {
		n, err := conn.Read(b)
		count.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// dial begins a stream.
func dial(to netip.AddrPort, what byte) (net.Conn, error) {
	conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte{what})
	return conn, err
}

// streams are the client's ends, on r.conns connections. None of them ends by itself.
type streams struct {
	received, sent atomic.Int64
	failed         chan error
}

// openStreams waits for the first byte of each that comes down.
func openStreams(r request) (*streams, error) {
	direction, found := directions[r.direction]
	if !found {
		return nil, fmt.Errorf("%q is no direction", r.direction)
	}
	s := &streams{failed: make(chan error, 2*r.conns)}
	for range r.conns {
		conn, err := dial(r.to, direction)
		if err != nil {
			return nil, err
		}
		if direction != receiveUp {
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				return nil, fmt.Errorf("no stream began: %w", err)
			}
			go func() { s.failed <- drain(conn, &s.received) }()
		}
		if direction != sendDown {
			go func() { s.failed <- fill(conn, &s.sent) }()
		}
	}
	return s, nil
}

// bulk streams, and counts bytes where they arrive.
func bulk(r request) (values, error) {
	s, err := openStreams(r)
	if err != nil {
		return nil, err
	}
	return s.measure(r)
}

// readers takes streams until the process is killed, and reports on descriptor 3 once all have begun.
func readers(r request) (values, error) {
	ready := status.Adopt()
	s, err := openStreams(r)
	if err == nil {
		err = ready.Ready()
	}
	if err != nil {
		return nil, err
	}
	return nil, <-s.failed
}

func (s *streams) measure(r request) (values, error) {
	counts, err := r.openCounts()
	if err != nil {
		return nil, err
	}
	if err := s.wait(r.warmup); err != nil {
		return nil, err
	}
	before, err := r.read(counts)
	if err != nil {
		return nil, err
	}
	received, sent := s.received.Load(), s.sent.Load()
	if err := s.wait(r.time); err != nil {
		return nil, err
	}
	received, sent = s.received.Load()-received, s.sent.Load()-sent
	after, err := r.read(counts)
	if err != nil {
		return nil, err
	}
	v, err := after.rate(before, received+after.received-before.received)
	if r.offered > 0 && err == nil {
		v["lost-%"] = max(0, 100*(1-float64(after.received-before.received)/float64(sent)))
	}
	return v, err
}

// wait lets the streams run.
func (s *streams) wait(d time.Duration) error {
	select {
	case err := <-s.failed:
		return fmt.Errorf("stream ended: %w", err)
	case <-time.After(d):
		return nil
	}
}

// counter is a connection to the server, on which it tells what it has counted.
type counter struct{ net.Conn }

// openCounts waits until the server has accepted the connection, which it does among streams.
func (r request) openCounts() (c counter, err error) {
	if c.Conn, err = net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(r.counts)); err == nil {
		_, _, err = c.ask()
	}
	return c, err
}

// ask asks for the bytes that the server has received and sent.
func (c counter) ask() (received, sent int64, err error) {
	both := []int64{0, 0}
	err = c.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = c.Write([]byte{tellCounts})
	}
	if err == nil {
		err = binary.Read(c, binary.BigEndian, both)
	}
	if err != nil {
		err = fmt.Errorf("ask the server what it has counted: %w", err)
	}
	return both[0], both[1], err
}

// reading is the times, and how many bytes the server has received and sent.
type reading struct {
	usage.Times
	received, sent int64
}

// read reads. The times come last: what the question to the server takes is not between them and the counts.
func (r request) read(counts counter) (now reading, err error) {
	if counts.Conn != nil {
		if now.received, now.sent, err = counts.ask(); err != nil {
			return now, err
		}
	}
	now.Times, err = usage.Read(r.proxy, append([]int{os.Getpid()}, r.ends...)...)
	return now, err
}

// rate is that of so many bytes since an earlier reading.
func (now reading) rate(before reading, moved int64) (values, error) {
	took := now.Since(before.Times)
	if moved == 0 {
		return nil, fmt.Errorf("no byte of a stream arrived within %v", took)
	}
	v := now.Each(before.Times, float64(moved)/1e9, time.Second, "s/GB")
	v["Gbit/s"] = 8 * float64(moved) / 1e9 / took.Seconds()
	return v, nil
}

// pour streams datagrams at a fixed rate, whatever becomes of them, and measures what arrives.
func pour(r request) (values, error) {
	t, err := openTap(r)
	if err != nil {
		return nil, err
	}
	s := &streams{failed: make(chan error, 1)}
	go func() { s.failed <- t.flow(&s.sent) }()
	return s.measure(r)
}

// tap is a source of datagrams: single ones, or blocks of them that the kernel cuts (UDP_SEGMENT).
type tap struct {
	fd       int
	block    []byte
	interval time.Duration // between blocks
}

func openTap(r request) (*tap, error) {
	if r.size < 1 || r.size > maxDatagram || r.offered <= 0 {
		return nil, fmt.Errorf("no stream of %v Gbit/s in datagrams of %d bytes", r.offered, r.size)
	}
	const segments = 64 // UDP_MAX_SEGMENTS of kernels before 6.6
	n := min(segments, maxDatagram/r.size)
	fd, err := dialUDP(sockaddr(r.to))
	if r.single {
		n = 1
	} else if err == nil {
		err = os.NewSyscallError("setsockopt UDP_SEGMENT",
			unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, r.size))
	}
	// Bits by bits per nanosecond.
	return &tap{fd, make([]byte, r.size*n), time.Duration(8 * float64(r.size*n) / r.offered)}, err
}

// flow sends a block whenever it is time for one, and counts the bytes. What could not be sent for a while is sent in a
// burst, but no more of it than burst.
func (t *tap) flow(sent *atomic.Int64) error {
	const burst = time.Millisecond
	runtime.LockOSThread() // the precision of timers is a thread's own
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_TIMERSLACK", err)
	}
	start := time.Now()
	for next := time.Duration(0); ; next += t.interval {
		late := time.Since(start) - next
		if late < 0 {
			nap(-late)
		} else if late > burst {
			next += late - burst
		}
		n, errno := write(t.fd, t.block)
		if errno != 0 {
			return os.NewSyscallError("write", errno)
		}
		sent.Add(int64(n))
	}
}

// nap sleeps as precisely as the kernel can, which is more than Go's timers do.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_, _ = call(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0, 0) // the next block is late at worst
}
