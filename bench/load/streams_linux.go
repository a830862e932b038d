package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/portsplice/portsplice/bench/internal/usage"
)

// What the first byte of a stream asks of the server.
const (
	sendDown  = 'd'
	receiveUp = 'u'
	sendBoth  = 'b'
	tellCount = 'c'
)

var directions = map[string]byte{"down": sendDown, "up": receiveUp, "both": sendBoth}

// chunk is what is read or written at a time.
const chunk = 128 << 10

// streamServer sends and receives without end.
type streamServer struct {
	net.Listener
	received atomic.Int64
}

func listenStreams(on netip.AddrPort) (*streamServer, error) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(on))
	if err != nil {
		return nil, err
	}
	return &streamServer{Listener: l}, nil
}

func (s *streamServer) serve() error {
	for {
		conn, err := s.Accept()
		if err != nil {
			return err
		}
		go s.stream(conn)
	}
}

// stream serves one stream to its end, which is the client's to explain.
func (s *streamServer) stream(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var what [1]byte
	if _, err := io.ReadFull(conn, what[:]); err != nil {
		return
	}
	switch what[0] {
	case sendDown:
		_ = fill(conn)
	case receiveUp:
		_ = drain(conn, &s.received)
	case sendBoth:
		go func() { _ = fill(conn) }() // ends with the connection
		_ = drain(conn, &s.received)
	case tellCount:
		_ = s.tell(conn)
	}
}

func (s *streamServer) tell(conn net.Conn) error {
	var asked [1]byte
	for {
		if _, err := io.ReadFull(conn, asked[:]); err != nil {
			return err
		}
		if err := binary.Write(conn, binary.BigEndian, s.received.Load()); err != nil {
			return err
		}
	}
}

func fill(conn net.Conn) error {
	for b := make([]byte, chunk); ; {
		if _, err := conn.Write(b); err != nil {
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

// streams are the client's ends.
type streams struct {
	direction byte
	received  atomic.Int64 // here, of what comes down
	offered   atomic.Int64 // of datagrams, which may be lost
	counts    net.Conn     // asks the server what has come up
	failed    chan error
}

// bulk streams on r.conns connections, and counts bytes where they arrive.
func bulk(r request) (values, error) {
	direction, found := directions[r.direction]
	if !found {
		return nil, fmt.Errorf("%q is no direction", r.direction)
	}
	s := &streams{direction: direction, failed: make(chan error, 2*r.conns)}
	var err error
	if s.counts, err = dial(r.counts, tellCount); err != nil {
		return nil, err
	}
	for range r.conns {
		if err := s.begin(r.to); err != nil {
			return nil, err
		}
	}
	if err := s.wait(r.warmup); err != nil {
		return nil, err
	}
	return s.measure(r)
}

func (s *streams) begin(to netip.AddrPort) error {
	conn, err := dial(to, s.direction)
	if err != nil {
		return err
	}
	if s.direction != receiveUp {
		go func() { s.failed <- drain(conn, &s.received) }()
	}
	if s.direction != sendDown {
		go func() { s.failed <- fill(conn) }()
	}
	return nil
}

func (s *streams) measure(r request) (values, error) {
	before, bytesBefore, err := s.read(r)
	if err != nil {
		return nil, err
	}
	offered := -s.offered.Load()
	if err := s.wait(r.time); err != nil {
		return nil, err
	}
	offered += s.offered.Load()
	after, bytesAfter, err := s.read(r)
	if err != nil {
		return nil, err
	}
	moved := float64(bytesAfter - bytesBefore)
	if moved == 0 {
		return nil, fmt.Errorf("no byte arrived within %v", r.time)
	}
	v := after.Each(before, moved/1e9, time.Second, "s/GB")
	v["Gbit/s"] = 8 * moved / 1e9 / after.Since(before).Seconds()
	if offered > 0 {
		v["lost-%"] = max(0, 100*(1-moved/float64(offered)))
	}
	return v, nil
}

// wait lets the streams run; none of them ends by itself.
func (s *streams) wait(d time.Duration) error {
	select {
	case err := <-s.failed:
		return fmt.Errorf("stream ended: %w", err)
	case <-time.After(d):
		return nil
	}
}

// read reads the times and how many bytes have arrived at both ends. The times come last: what the question to the
// server takes is not between them and the count.
func (s *streams) read(r request) (usage.Times, int64, error) {
	var up int64
	if _, err := s.counts.Write([]byte{tellCount}); err != nil {
		return usage.Times{}, 0, err
	}
	if err := binary.Read(s.counts, binary.BigEndian, &up); err != nil {
		return usage.Times{}, 0, err
	}
	down := s.received.Load()
	t, err := r.readTimes()
	return t, up + down, err
}

func dial(to netip.AddrPort, what byte) (net.Conn, error) {
	conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte{what})
	return conn, err
}
