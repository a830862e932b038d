package main

import (
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
)

func listenTCP(on netip.AddrPort, adopt bool) (*net.TCPListener, error) {
	if !adopt {
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(on))
	}
	socket := os.NewFile(listenFD, "listener")
	defer func() { _ = socket.Close() }() // the listener has a copy
	l, err := net.FileListener(socket)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// startTCP opens a listener for each port; if it is adopted there is one.
func startTCP(on netip.AddrPort, ports int, backend netip.AddrPort, adopt bool) (serve func(), err error) {
	var all []*net.TCPListener
	for i := range ports {
		l, err := listenTCP(netip.AddrPortFrom(on.Addr(), on.Port()+uint16(i)), adopt)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return func() {
		for _, l := range all {
			go serveTCP(l, net.TCPAddrFromAddrPort(backend))
		}
	}, nil
}

func serveTCP(frontend *net.TCPListener, backend *net.TCPAddr) {
	for {
		client, err := frontend.AcceptTCP()
		if err != nil {
			log.Fatal(err)
		}
		go relay(client, backend)
	}
}

func relay(client *net.TCPConn, backend *net.TCPAddr) {
	defer func() { _ = client.Close() }()
	server, err := net.DialTCP("tcp", nil, backend)
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = server.Close() }()
	var both sync.WaitGroup
	both.Go(func() { pump(server, client) })
	both.Go(func() { pump(client, server) })
	both.Wait()
}

// pump discards errors as docker-proxy does: the far side learns of the end, and not why.
func pump(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = from.CloseRead()
	_ = to.CloseWrite()
}
