package main

import (
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
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

const (
	maxDatagram = 65_507           // docker-proxy's buffers: what IPv4 can carry
	idleTimeout = 90 * time.Second // of a client
)

// startUDP serves a socket, adopted or new.
func startUDP(on netip.AddrPort, adopted *os.File, backend *net.UDPAddr) (err error) {
	var c net.PacketConn
	if adopted != nil {
		c, err = net.FilePacketConn(adopted)
	} else {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(on))
	}
	if err == nil {
		go serveUDP(c.(*net.UDPConn), backend)
	}
	return err
}

// udpRelay has a socket towards the backend for each client.
type udpRelay struct {
	frontend *net.UDPConn
	backend  *net.UDPAddr
	mu       sync.Mutex
	sockets  map[netip.AddrPort]*net.UDPConn
}

func serveUDP(frontend *net.UDPConn, backend *net.UDPAddr) {
	r := &udpRelay{frontend: frontend, backend: backend, sockets: map[netip.AddrPort]*net.UDPConn{}}
	for b := make([]byte, maxDatagram); ; {
		n, client, err := frontend.ReadFromUDPAddrPort(b)
		if err != nil {
			log.Fatal(err)
		}
		socket, err := r.socket(client)
		if err == nil {
			_, err = socket.Write(b[:n])
		}
		if err != nil {
			log.Print(err)
		}
	}
}

func (r *udpRelay) socket(client netip.AddrPort) (*net.UDPConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if socket, found := r.sockets[client]; found {
		return socket, nil
	}
	socket, err := net.DialUDP("udp", nil, r.backend)
	if err == nil {
		r.sockets[client] = socket
		go r.answer(socket, client)
	}
	return socket, err
}

// answer relays the backend's datagrams to a client until there has been none for a while.
func (r *udpRelay) answer(socket *net.UDPConn, client netip.AddrPort) {
	defer func() {
		r.mu.Lock()
		delete(r.sockets, client)
		r.mu.Unlock()
		_ = socket.Close()
	}()
	for b := make([]byte, maxDatagram); ; {
		if err := socket.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
			return
		}
		n, err := socket.Read(b)
		if err != nil {
			return
		}
		if _, err := r.frontend.WriteToUDPAddrPort(b[:n], client); err != nil {
			return
		}
	}
}
