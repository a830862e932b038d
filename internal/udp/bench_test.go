package udp

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
)

// BenchmarkExchange is one client that asks and waits for the answer, in one process: the relay, its client and its
// backend. "direct" is the same without the relay.
func BenchmarkExchange(b *testing.B) {
	for _, size := range []int{0, 200, 1472, 65507} {
		for _, relayed := range []bool{false, true} {
			name := map[bool]string{false: "direct", true: "portable"}[relayed]
			b.Run(fmt.Sprintf("proxy=%s/size=%d", name, size), func(b *testing.B) {
				server := echo(b)
				if relayed {
					server, _ = benchRelay(b, server)
				}
				client := benchClient(b, server)
				datagram, buffer := pattern(size), make([]byte, maxDatagram)
				b.SetBytes(int64(2 * size))
				b.ReportAllocs()
				for b.Loop() {
					if err := ask(client, datagram, buffer); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkIdleFlow is what a flow of the portable relay costs in the memory of the process once it has exchanged a
// datagram and waits. The kernel's part, a socket, is not in it.
func BenchmarkIdleFlow(b *testing.B) {
	const flows = 4000
	var total int64
	for b.Loop() {
		before := inUse()
		closeAll := openFlows(b, flows)
		total += inUse() - before
		closeAll()
	}
	b.ReportMetric(float64(total)/float64(b.N)/flows, "B/flow")
}

// openFlows has one client socket ask many addresses of 127.0.0.0/8 through a relay: a flow for each.
func openFlows(b *testing.B, flows int) (closeAll func()) {
	b.Helper()
	server, closeRelay := benchRelay(b, echo(b))
	client := benchListen(b)
	buffer := make([]byte, 8)
	for i := range flows {
		asked := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), server.Port())
		if _, err := client.WriteToUDPAddrPort([]byte("hello"), asked); err != nil {
			b.Fatal(err)
		}
		if _, _, err := client.ReadFromUDPAddrPort(buffer); err != nil {
			b.Fatal(err)
		}
	}
	return closeRelay
}

// inUse is the memory that objects and stacks take after a collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC() // the second one empties the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func ask(client *net.UDPConn, datagram, buffer []byte) error {
	if _, _, err := client.WriteMsgUDP(datagram, nil, nil); err != nil {
		return err
	}
	_, _, err := client.ReadFromUDPAddrPort(buffer)
	return err
}

func benchListen(b testing.TB) *net.UDPConn {
	b.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

func benchClient(b *testing.B, server netip.AddrPort) *net.UDPConn {
	b.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// echo is a backend that answers everything with itself.
func echo(b testing.TB) netip.AddrPort {
	conn := benchListen(b)
	go func() {
		buffer := make([]byte, maxDatagram)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			if _, err := conn.WriteToUDPAddrPort(buffer[:n], from); err != nil {
				return
			}
		}
	}()
	return addressOf(conn)
}

func benchRelay(b *testing.B, backend netip.AddrPort) (address netip.AddrPort, closeRelay func()) {
	b.Helper()
	frontend, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		b.Fatal(err)
	}
	r, err := NewPortable(frontend, backend, Options{})
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		if err := r.Serve(); err != nil {
			b.Error(err)
		}
	}()
	closeRelay = func() { _ = r.Close() } // a second time for the cleanup, which is harmless
	b.Cleanup(closeRelay)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addressOf(frontend).Port()), closeRelay
}
