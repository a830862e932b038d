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

// interval runs a warm-up and then what counts, and reads before and after that; what the server has counted, where there
// are streams.
func (r request) interval(streams bool, run func(time.Duration)) (before, after reading) {
	var counts *net.TCPConn
	if streams {
		counts = must(dialTCP(r.counts))
		askCounts(counts) // wait until the server has accepted the connection, which it does among streams
	}
	// The times come last: what the question to the server takes is not between them and the counts.
	read := func() (now reading) {
		if streams {
			now.received, now.sent = askCounts(counts)
		}
		now.Times = must(usage.Read(r.proxy, append([]int{os.Getpid()}, r.ends...)))
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
		fail("no byte of a stream arrived within %v", took)
	}
	v := now.Each(before.Times, float64(moved)/1e9, time.Second, "s/GB")
	v["Gbit/s"] = 8 * float64(moved) / 1e9 / took.Seconds()
	return v
}

// askCounts asks the server for the bytes that it has received and sent.
func askCounts(server *net.TCPConn) (received, sent int64) {
	both := []int64{0, 0}
	err := server.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = server.Write([]byte{tellCounts})
	}
	if err == nil {
		err = binary.Read(server, binary.BigEndian, both)
	}
	if err != nil {
		fail("ask the server what it has counted: %w", err)
	}
	return both[0], both[1]
}
