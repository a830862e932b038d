//go:build !linux

package udp

import "net"

// inbox receives from a flow's socket into a buffer of its own.
type inbox struct {
	conn   *net.UDPConn
	buffer []byte
}

func newInbox(conn *net.UDPConn) (*inbox, error) {
	return &inbox{conn: conn, buffer: make([]byte, maxDatagram)}, nil
}

// receive waits for a datagram. It is valid until the next call.
func (in *inbox) receive() ([]byte, error) {
	n, err := in.conn.Read(in.buffer)
	return in.buffer[:n], err
}

func (in *inbox) release() {}
