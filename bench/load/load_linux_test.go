package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
)

func TestMain(m *testing.M) {
	benchtest.Main(m, func() {
		if err := Run(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	})
}

// start starts the program, which reports that it is ready.
func start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd, said := benchtest.Start(t, nil, args...)
	if said != "0\n" {
		t.Fatalf("the status is %q", said)
	}
	return cmd
}

// serveAt starts a server on an address of the loopback network that no other test process uses.
func serveAt(t *testing.T) (at, sink string, pid int) {
	t.Helper()
	ours := benchtest.OwnAddress()
	at, sink = netip.AddrPortFrom(ours, 9900).String(), netip.AddrPortFrom(ours, 9901).String()
	return at, sink, start(t, "serve", "-on", at, "-sink", sink).Process.Pid
}

// Every client works with the server, and measures all that it should. The server stands in for the proxy whose CPU
// time is measured.
func TestClients(t *testing.T) {
	at, sink, pid := serveAt(t)
	start(t, "readers", "-to", at, "-conns", "2") // what runs beside others
	for _, test := range []struct {
		args, to string
		units    []string
	}{
		{"exchange", at, []string{"exchange/s", "p50-us", "p99-us", "proxy-us/exchange"}},
		{"exchange -conns 20 -size 8", at, []string{"exchange/s"}},
		{"exchange -conns 2 -size 1048576", at, []string{"exchange/s"}}, // far beyond what sockets hold
		{"exchange -beside -time 1s", at, []string{"exchange/s", "p50-us", "p99-us", "Gbit/s", "proxy-s/GB"}},
		{"crr -conns 8", at, []string{"conn/s", "p50-us", "p99-us", "proxy-us/conn"}},
		{"connects -conns 50 -beside", at, []string{"p50-us", "last-us", "Gbit/s", "proxy-s/GB"}},
		// Where others keep the CPUs, no byte may come within 100 ms.
		{"bulk -direction down -time 1s", at, []string{"Gbit/s", "proxy-s/GB"}},
		{"bulk -direction up -conns 3 -time 1s", at, []string{"Gbit/s", "proxy-s/GB"}},
		{"bulk -direction both -conns 2 -time 1s", at, []string{"Gbit/s", "proxy-s/GB"}},
		{"exchange -datagrams -conns 64 -size 200", at, []string{"exchange/s", "proxy-us/exchange"}},
		{"exchange -datagrams -window 32 -size 9000", at, []string{"exchange/s"}},
		{"oneshot -datagrams -conns 64 -count 1500 -size 60 -answer 200", at, []string{"exchange/s", "p99.9-us", "proxy-us/exchange"}},
		{"pour -size 1400 -offered 0.1", sink, []string{"Gbit/s", "proxy-s/GB"}},
		{"pour -size 1200 -offered 0.1 -single", sink, []string{"Gbit/s", "proxy-s/GB"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			v := measured(t, append(strings.Fields(test.args), "-to", test.to, "-counts", at, "-proxy", strconv.Itoa(pid)))
			for _, unit := range test.units {
				if v[unit] <= 0 {
					t.Errorf("%s is %v; all: %v", unit, v[unit], v)
				}
			}
			if v["p50-us"] > v["p99-us"] {
				t.Errorf("p50 %v, p99 %v", v["p50-us"], v["p99-us"])
			}
		})
	}
}

// measured is what a client measures in a short time.
func measured(t *testing.T, args []string) (v values) {
	t.Helper()
	out, err := benchtest.Program(t, slices.Concat(args[:1], []string{"-time", "100ms", "-warmup", "20ms"}, args[1:])...).Output()
	benchtest.Must(t, err)
	benchtest.Must(t, json.Unmarshal(out, &v))
	return v
}

// A server that other streams kept busy finds two questions at once, and answers both: the client would wait for ever.
func TestCountsAreToldAsOftenAsTheyAreAskedFor(t *testing.T) {
	at, _, _ := serveAt(t)
	conn, err := net.Dial("tcp4", at)
	benchtest.Must(t, err)
	_, err = conn.Write([]byte{tellCounts, tellCounts, tellCounts})
	benchtest.Must(t, err)
	benchtest.Must(t, conn.(*net.TCPConn).CloseWrite()) // the server closes when it has answered
	answers, err := io.ReadAll(conn)
	benchtest.Must(t, err)
	benchtest.Must(t, conn.Close())
	if want := make([]byte, 3*2*8); !bytes.Equal(answers, want) {
		t.Errorf("answered %x, want %x", answers, want)
	}
}

// TestHeaders: a server that wants PROXY headers answers whoever begins with one, in however many parts, and resets others.
func TestHeaders(t *testing.T) {
	ours := benchtest.OwnAddress()
	at, sink := netip.AddrPortFrom(ours, 9900).String(), netip.AddrPortFrom(ours, 9901).String()
	start(t, "serve", "-headers", "-on", at, "-sink", sink)
	const header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02"
	message := makeHeader(headerSize, 7)
	for sent, want := range map[string]string{
		header + string(message[:]):          string(message[:]),
		string(message[:]):                   "",
		header[:12] + "\x20" + header[13:]:   "", // of a connection by the proxy itself
		"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n": "",
	} {
		conn, err := net.Dial("tcp4", at)
		benchtest.Must(t, err)
		for part := range slices.Chunk([]byte(sent), 5) {
			if _, err := conn.Write(part); err != nil {
				break // it was reset before
			}
		}
		got := make([]byte, len(message))
		n, err := conn.Read(got)
		if string(got[:n]) != want || (err == nil) != (want != "") {
			t.Errorf("%q is answered %q, %v; want %q", sent, got[:n], err, want)
		}
		benchtest.Must(t, conn.Close())
	}
}

func TestIdleHoldsItsConnections(t *testing.T) {
	const conns = 100 // more than are opened at a time
	at, _, pid := serveAt(t)
	before := descriptors(t, pid)
	start(t, "idle", "-to", at, "-conns", strconv.Itoa(conns))
	if n := descriptors(t, pid) - before; n != conns {
		t.Errorf("the server holds %d connections, want %d", n, conns)
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	benchtest.Must(t, err)
	return len(entries)
}

func TestFlowsAreHeld(t *testing.T) {
	const conns = 100 // more than are opened at a time
	at, _, _ := serveAt(t)
	if n := descriptors(t, start(t, "idle", "-datagrams", "-to", at, "-conns", strconv.Itoa(conns)).Process.Pid); n < conns {
		t.Errorf("the client holds %d descriptors, want more than %d", n, conns)
	}
}

// A datagram without an answer is given up and sent again, and what answers it too late does not count.
func TestLostDatagrams(t *testing.T) {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	benchtest.Must(t, err)
	asked := make(chan int, 1)
	go func() { asked <- answerSecond(socket) }()
	start(t, "idle", "-datagrams", "-to", socket.LocalAddr().String())
	benchtest.Must(t, socket.Close())
	if n := <-asked; n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

// answerSecond answers the second datagram, and before it the first, and counts until the socket is closed.
func answerSecond(socket *net.UDPConn) (asked int) {
	var both [2][64]byte
	for {
		n, client, err := socket.ReadFromUDPAddrPort(both[asked%2][:])
		if err != nil {
			return asked
		}
		asked++
		if asked != 2 {
			continue
		}
		for _, b := range both {
			_, _ = socket.WriteToUDPAddrPort(b[:n], client) // the client fails if it is not answered
		}
	}
}

// A client that is not served as it should be fails: it measures nothing.
func TestClientsFail(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(net.Conn, []byte) error
		want   string
	}{
		{"another number", func(c net.Conn, m []byte) error {
			m[7]++
			_, err := c.Write(m)
			return err
		}, "answered"},
		{"too much", func(c net.Conn, m []byte) error {
			_, err := c.Write(append(m, 0))
			return err
		}, "65 bytes arrived of a message of 64"},
		{"half an answer", func(c net.Conn, m []byte) error {
			_, err := c.Write(m[:32])
			return err
		}, "unexpected EOF"},
		{"no answer", func(net.Conn, []byte) error { return nil }, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			benchtest.Must(t, err)
			served := make(chan error, 1)
			go func() { served <- serveOne(l, test.answer) }()
			cmd := benchtest.Program(t, "exchange", "-to", l.Addr().String())
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if out, err := cmd.Output(); err == nil {
				t.Errorf("measured %s", out)
			}
			benchtest.Must(t, <-served)
			benchtest.Must(t, l.Close())
			if !strings.Contains(stderr.String(), test.want) {
				t.Errorf("%q does not tell %q", &stderr, test.want)
			}
		})
	}
}

// serveOne answers one message of 64 bytes and closes.
func serveOne(l net.Listener, answer func(net.Conn, []byte) error) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the client reports what is wrong
	message := make([]byte, 64)
	if _, err := io.ReadFull(conn, message); err != nil {
		return err
	}
	return answer(conn, message)
}

func TestHeaderInPieces(t *testing.T) {
	whole := make([]byte, 20)
	header := makeHeader(len(whole), 7)
	copy(whole, header[:])
	var c conn
	for i := range whole {
		done, err := c.take(whole[i : i+1])
		benchtest.Must(t, err)
		if done != (i == len(whole)-1) {
			t.Fatalf("whole: %v after %d of %d bytes", done, i+1, len(whole))
		}
	}
	if c.incoming != header {
		t.Errorf("the header is %x, want %x", c.incoming, header)
	}
}
