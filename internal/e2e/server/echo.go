package main

import (
	"bytes"
	"io"
	"log"
	"net"
)

func serve(l net.Listener, handle func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer func() { _ = c.Close() }() // the client notices
			if err := handle(c); err != nil {
				log.Print(err) // a client that goes away in the middle is part of some tests
			}
		}()
	}
}

func echoBytes(c net.Conn) error {
	_, err := io.Copy(c, c)
	return err
}

// echoAtEnd says nothing before the client has shut down its write side: a proxy that takes the first EOF for the
// end of the connection loses the whole reply.
func echoAtEnd(c net.Conn) error {
	all, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	_, err = io.Copy(c, bytes.NewReader(all))
	return err
}

func echoDatagrams(c net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := c.WriteTo(buf[:n], from); err != nil {
			log.Print(err)
		}
	}
}
