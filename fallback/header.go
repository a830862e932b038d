package fallback

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/proxyheader"
)

// client is what is known of a client before its backend is connected.
type client struct {
	proxyheader.Addresses        // as its own header tells, or else as its connection has them
	early                 []byte // came behind that header
	version               uint8  // of the header that its backend gets; zero: none
}

// readHeader reads the PROXY header that the client begins with. The error is io.EOF if it has ended without a byte.
func (c *client) readHeader(conn *net.TCPConn, deadline time.Time) error {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	b := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(b)
	for have := 0; ; {
		n, err := conn.Read(b[have:proxyheader.Max])
		have += n
		told, length, wrong := proxyheader.Parse(b[:have])
		switch {
		case wrong != nil:
			return wrong
		case length > 0:
			if told.Client.IsValid() {
				c.Addresses = told
			}
			c.early = bytes.Clone(b[length:have])
			return conn.SetReadDeadline(time.Time{})
		case errors.Is(err, io.EOF) && have > 0:
			return proxyheader.ErrEnded
		case errors.Is(err, os.ErrDeadlineExceeded):
			return proxyheader.ErrTimeout
		case err != nil:
			return err
		}
	}
}

// refused counts and reports a client that has not begun with a header as it should be, unless that has reset or the
// engine closes.
func (p *Port) refused(client netip.AddrPort, err error) {
	e := p.engine
	switch {
	case errors.Is(err, net.ErrClosed):
	case errors.Is(err, syscall.ECONNRESET):
		e.stats.aborted.Add(1)
	default:
		e.stats.headersRefused.Add(1)
		e.options.Load().Report("proxy header", client, p.backend, err)
	}
}

// first is what the backend gets before what the client sends from now on: a header, if it is to have one, and what the
// client has sent behind its own.
func (c *client) first() (b []byte) {
	if c.version != 0 {
		b = c.Format(c.version)
	}
	return append(b, c.early...)
}
