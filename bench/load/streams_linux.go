package load

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
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

// streams is one end of any number of streams, and counts their bytes; the server's are those of datagrams that are not
// answered, too. Of a client's end, none ends by itself.
type streams struct {
	received, sent atomic.Int64
	failed         chan error // of a client
}

// serve serves one stream to its end, which is the client's to explain. Of its bytes n have arrived, of which the first
// says what it asks for.
func (s *streams) serve(conn net.Conn, what byte, n int) {
	defer func() { _ = conn.Close() }()
	switch what {
	case sendDown:
		_ = move(conn.Write, &s.sent)
	case sendBoth:
		go func() { _ = move(conn.Write, &s.sent) }() // ends with the connection
		fallthrough
	case receiveUp:
		s.received.Add(int64(n - 1))
		_ = move(conn.Read, &s.received)
	case tellCounts: // as often as asked: a server that is kept busy reads more than one question at a time
		questions := make([]byte, 16)
		for err := error(nil); err == nil; n, err = conn.Read(questions) {
			for range n {
				_ = binary.Write(conn, binary.BigEndian, []int64{s.received.Load(), s.sent.Load()}) // who is gone asks no more
			}
		}
	}
}

// move reads or writes until that fails, and counts the bytes.
func move(some func([]byte) (int, error), count *atomic.Int64) error {
	for b := make([]byte, 128<<10); ; {
		n, err := some(b)
		count.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

func dialTCP(to netip.AddrPort) (*net.TCPConn, error) {
	return net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
}

// openStreams opens a client's ends, and waits for the first byte of each that comes down. None of them begins before all are
// open: beside streams, each connection takes a tenth of a second.
func openStreams(r request) *streams {
	direction, found := directions[r.direction]
	if !found {
		failure.Fail("%q is no direction", r.direction)
	}
	s := &streams{failed: make(chan error, 2*r.conns)}
	conns := make([]*net.TCPConn, r.conns)
	for i := range conns {
		conns[i] = failure.Must(dialTCP(r.to))
	}
	for _, conn := range conns {
		failure.Must(conn.Write([]byte{direction}))
	}
	for _, conn := range conns {
		if direction != receiveUp {
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				failure.Fail("no stream began: %w", err)
			}
			go func() { s.failed <- move(conn.Read, &s.received) }()
		}
		if direction != sendDown {
			go func() { s.failed <- move(conn.Write, &s.sent) }()
		}
	}
	return s
}

// bulk streams, and counts bytes where they arrive.
func bulk(r request) values { return openStreams(r).measure(r) }

// readers takes streams until the process is killed, and reports on descriptor 3 once all have begun.
func readers(r request) values {
	ready := status.Adopt()
	s := openStreams(r)
	failure.Check(ready.Ready())
	failure.Fail("stream ended: %w", <-s.failed)
	return nil
}

func (s *streams) measure(r request) values {
	var received, sent int64 // here
	before, after := r.interval(true, func(d time.Duration) {
		received, sent = s.received.Load(), s.sent.Load()
		select {
		case err := <-s.failed:
			failure.Fail("stream ended: %w", err)
		case <-time.After(d):
		}
		received, sent = s.received.Load()-received, s.sent.Load()-sent
	})
	arrived := after.received - before.received // there
	v := after.rate(before, received+arrived)
	if r.offered > 0 {
		v["lost-%"] = max(0, 100*(1-float64(arrived)/float64(sent)))
	}
	return v
}

// reading is the times, and how many bytes of streams the server has received and sent.
type reading struct {
	usage.Times
	received, sent int64
}

// interval runs a warm-up and then what counts, and reads before and after that; what the server has counted, where there
// are streams.
func (r request) interval(streams bool, run func(time.Duration)) (before, after reading) {
	var counts *net.TCPConn
	if streams {
		counts = failure.Must(dialTCP(r.counts))
		askCounts(counts) // wait until the server has accepted the connection, which it does among streams
	}
	// The times come last: what the question to the server takes is not between them and the counts.
	read := func() (now reading) {
		if streams {
			now.received, now.sent = askCounts(counts)
		}
		now.Times = usage.Read(r.proxy, append([]int{os.Getpid()}, r.ends...))
		return now
	}
	run(r.warmup)
	before = read()
	run(r.time)
	return before, read()
}

// rate is that of so many bytes since an earlier reading.
func (now reading) rate(before reading, moved int64) values {
	took := now.Since(before.Times)
	if moved == 0 {
		failure.Fail("no byte of a stream arrived within %v", took)
	}
	v := now.Each(before.Times, float64(moved)/1e9, time.Second, "s/GB")
	v["Gbit/s"] = 8 * float64(moved) / 1e9 / took.Seconds()
	return v
}

// askCounts asks the server for the bytes that it has received and sent.
func askCounts(server *net.TCPConn) (received, sent int64) {
	failure.Check(server.SetDeadline(time.Now().Add(patience)))
	failure.Must(server.Write([]byte{tellCounts}))
	both := []int64{0, 0}
	if err := binary.Read(server, binary.BigEndian, both); err != nil {
		failure.Fail("ask the server what it has counted: %w", err)
	}
	return both[0], both[1]
}

// pour streams datagrams at a fixed rate, whatever becomes of them, and measures what arrives. They are single ones, or
// blocks that the kernel cuts (UDP_SEGMENT).
func pour(r request) values {
	if r.size < 1 || r.size > maxDatagram || r.offered <= 0 {
		failure.Fail("no stream of %v Gbit/s in datagrams of %d bytes", r.offered, r.size)
	}
	fd, block := dialUDP(r.to), r.size
	if !r.single {
		const segments = 64 // UDP_MAX_SEGMENTS of kernels before 6.6
		block *= min(segments, maxDatagram/r.size)
		set(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, r.size)
	}
	interval := time.Duration(8 * float64(block) / r.offered) // bits by bits per nanosecond
	s := &streams{failed: make(chan error, 1)}
	go func() { s.failed <- failure.Caught(func() { s.flow(fd, make([]byte, block), interval) }) }()
	return s.measure(r)
}

// flow sends a block whenever it is time for one, and counts the bytes. What could not be sent for a while is sent in a
// burst, but no more of it than burst.
func (s *streams) flow(fd int, block []byte, interval time.Duration) {
	const burst = time.Millisecond
	runtime.LockOSThread() // the precision of timers is a thread's own
	checkCall("prctl PR_SET_TIMERSLACK", unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0))
	start := time.Now()
	for next := time.Duration(0); ; next += interval {
		late := time.Since(start) - next
		if late < 0 { // sleep as precisely as the kernel can, which is more than Go's timers do
			t := unix.NsecToTimespec(int64(-late))
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0) // a signal makes one block early
		} else if late > burst {
			next += late - burst
		}
		s.sent.Add(int64(failure.Must(write(fd, block))))
	}
}
