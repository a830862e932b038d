package main

import (
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
)

// startTCP serves a socket, adopted or new.
func startTCP(on netip.AddrPort, adopted *os.File, backend *net.TCPAddr) (err error) {
	var l net.Listener
	if adopted != nil {
		l, err = net.FileListener(adopted)
	} else {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(on))
	}
	if err == nil {
		go serveTCP(l.(*net.TCPListener), backend)
	}
	return err
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
