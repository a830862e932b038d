package main

import (
	"errors"
	"net/netip"

	"github.com/portsplice/portsplice/internal/status"
)

// serve answers messages and datagrams on one address, and sends and receives streams on another, until the process is
// killed. It reports on descriptor 3, as proxies do, once all are served.
func serve(messages, streams netip.AddrPort) error {
	ready := status.Adopt()
	m, err1 := listenMessages(messages)
	s, err2 := listenStreams(streams)
	echo, err3 := bindUDP(messages)
	sink, err4 := bindUDP(streams)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if err := ready.Ready(); err != nil {
		return err
	}
	ended := make(chan error)
	go func() { ended <- m.serve() }()
	go func() { ended <- s.serve() }()
	go func() { ended <- echoDatagrams(echo) }()
	go func() { ended <- countDatagrams(sink, &s.received) }()
	return <-ended
}
