// Command goref is the reference of the benchmarks: the way docker-proxy relays TCP, built with the Go of today.
//
// A distribution's docker-proxy is as old as the Go that built it. goref keeps its algorithm (for every connection a
// blocking dial and a goroutine per direction, io.Copy between two TCP connections, which splices on Linux, then
// CloseRead and CloseWrite) and dockerd's contract, so that what is compared is the design and not the compiler.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// What dockerd hands over.
const (
	statusFD = 3
	listenFD = 4
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	dockerd := os.NewFile(statusFD, "status")
	frontend, backend, err := start()
	if err != nil {
		_, _ = fmt.Fprintf(dockerd, "1\n%v\n", err) // standard error tells it too
		log.Fatal(err)
	}
	if _, err := io.WriteString(dockerd, "0\n"); err != nil {
		log.Fatal(err)
	}
	_ = dockerd.Close() // it is written
	go serve(frontend, backend)
	<-stop
}

func start() (*net.TCPListener, *net.TCPAddr, error) {
	protocol := flag.String("proto", "tcp", "protocol: tcp alone")
	hostIP := flag.String("host-ip", "0.0.0.0", "address of the frontend")
	hostPort := flag.Int("host-port", -1, "port of the frontend")
	containerIP := flag.String("container-ip", "0.0.0.0", "address of the backend")
	containerPort := flag.Int("container-port", -1, "port of the backend")
	useListenFD := flag.Bool("use-listen-fd", false, "descriptor 4 is the listening socket")
	flag.Parse()
	if *protocol != "tcp" {
		return nil, nil, errors.New("goref relays TCP alone")
	}
	backend, err := address(*containerIP, *containerPort)
	if err != nil {
		return nil, nil, err
	}
	if *useListenFD {
		l, err := adopt()
		return l, backend, err
	}
	addr, err := address(*hostIP, *hostPort)
	if err != nil {
		return nil, nil, err
	}
	l, err := net.ListenTCP("tcp", addr)
	return l, backend, err
}

func address(ip string, port int) (*net.TCPAddr, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, err
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))), nil
}

func adopt() (*net.TCPListener, error) {
	socket := os.NewFile(listenFD, "listener")
	defer func() { _ = socket.Close() }() // the listener has a copy
	l, err := net.FileListener(socket)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func serve(frontend *net.TCPListener, backend *net.TCPAddr) {
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
