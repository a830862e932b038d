package load

import (
	"encoding/binary"
	"net"
	"os"
	"time"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// reading is the times, and how many bytes of streams the server has received and sent.
type reading struct {
	usage.Times
	received, sent int64
}

// interval runs a warm-up and then what counts, and reads before and after that.
func (r request) interval(counts counter, run func(time.Duration)) (before, after reading) {
	run(r.warmup)
	before = r.read(counts)
	run(r.time)
	return before, r.read(counts)
}

// read reads. The times come last: what the question to the server takes is not between them and the counts.
func (r request) read(counts counter) (now reading) {
	if counts.TCPConn != nil {
		now.received, now.sent = counts.ask()
	}
	now.Times = must(usage.Read(r.proxy, append([]int{os.Getpid()}, r.ends...)))
	return now
}

// rate is that of so many bytes since an earlier reading.
func (now reading) rate(before reading, moved int64) values {
	took := now.Since(before.Times)
	if moved == 0 {
		fail("no byte of a stream arrived within %v", took)
	}
	v := now.Each(before.Times, float64(moved)/1e9, time.Second, "s/GB")
	v["Gbit/s"] = 8 * float64(moved) / 1e9 / took.Seconds()
	return v
}

// counter is a connection to the server, on which it tells what it has counted.
type counter struct{ *net.TCPConn }

// openCounts waits until the server has accepted the connection, which it does among streams.
func (r request) openCounts() counter {
	c := counter{must(dialTCP(r.counts))}
	c.ask()
	return c
}

// ask asks for the bytes that the server has received and sent.
func (c counter) ask() (received, sent int64) {
	both := []int64{0, 0}
	err := c.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = c.Write([]byte{tellCounts})
	}
	if err == nil {
		err = binary.Read(c, binary.BigEndian, both)
	}
	if err != nil {
		fail("ask the server what it has counted: %w", err)
	}
	return both[0], both[1]
}
