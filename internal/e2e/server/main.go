// Server runs in the containers of the end-to-end tests: HTTP with checksums, and echoes over TCP and UDP.
package main

import (
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	first := flag.Int("http", 3005, "first port that serves HTTP")
	count := flag.Int("http-count", 1, "how many ports in a row serve HTTP")
	echo := flag.Int("echo", 3006, "port that echoes bytes over TCP and datagrams over UDP")
	late := flag.Int("late", 3007, "port that echoes over TCP once the client has finished")
	flag.Parse()

	for i := range *count {
		l := listen(*first + i)
		go func() { log.Fatal(http.Serve(l, handler())) }()
	}
	go echoDatagrams(listenPacket(*echo))
	go serve(listen(*echo), echoBytes)
	go serve(listen(*late), echoAtEnd) // the last to be bound: who can connect to it can use every other port

	// The first process of a container gets no default action for SIGTERM: docker stop would wait, then kill.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

func listen(port int) net.Listener {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		log.Fatal(err)
	}
	return l
}

func listenPacket(port int) net.PacketConn {
	c, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
	if err != nil {
		log.Fatal(err)
	}
	return c
}
