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
func (in *inbox) receive() (datagram []byte, tos uint8, err error) {
	n, err := in.conn.Read(in.buffer)
	return in.buffer[:n], 0, err
}

// discardUnread does nothing: net does not let a socket be read that another goroutine waits for.
func (in *inbox) discardUnread() (n int) { return 0 }

func (in *inbox) release() {}

// cut never happens: the buffers are larger than any datagram, and no control messages are asked for.
func cut(int) bool { return false }
