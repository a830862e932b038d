package load

import (
	"encoding/json"
	"errors"
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
	"time"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

// asProgram in the environment makes the test binary the program.
const asProgram = "LOAD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		leakcheck.Main(m) // it exits
	}
	if err := Run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// program is the program with arguments.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	rig.Must(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), asProgram+"=1"), os.Stderr
	return cmd
}

// start starts the program, which reports that it is ready. It is killed when the test ends.
func start(t *testing.T, args ...string) (pid int) {
	t.Helper()
	status, report, err := os.Pipe()
	rig.Must(t, err)
	defer func() { rig.Must(t, status.Close()) }()
	rig.Must(t, status.SetReadDeadline(time.Now().Add(rig.Timeout)))
	cmd := program(t, args...)
	cmd.ExtraFiles = []*os.File{report}
	rig.Must(t, cmd.Start())
	rig.Must(t, report.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it says that it was killed
	})
	said, err := io.ReadAll(status)
	rig.Must(t, err)
	if string(said) != "0\n" {
		t.Fatalf("the status is %q", said)
	}
	return cmd.Process.Pid
}

// serveAt starts a server on an address of the loopback network that no other test process uses.
func serveAt(t *testing.T, more ...string) (at, sink string, pid int) {
	t.Helper()
	ours := rig.OwnAddress()
	at, sink = netip.AddrPortFrom(ours, 9900).String(), netip.AddrPortFrom(ours, 9901).String()
	return at, sink, start(t, append([]string{"serve", "-on", at, "-sink", sink}, more...)...)
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
		{"oneshot -datagrams -conns 64 -count 1500 -size 60 -answer 200", at,
			[]string{"exchange/s", "p99.9-us", "proxy-us/exchange"}},
		{"pour -size 1400 -offered 0.1", sink, []string{"Gbit/s", "proxy-s/GB"}},
		{"pour -size 1200 -offered 0.1 -single", sink, []string{"Gbit/s", "proxy-s/GB"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			args := strings.Fields(test.args + " -to " + test.to + " -counts " + at + " -proxy " + strconv.Itoa(pid))
			args = slices.Insert(args, 1, "-time", "100ms", "-warmup", "20ms")
			var v values // in a short time
			failure.Check(json.Unmarshal(failure.Must(program(t, args...).Output()), &v))
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

// A server answers what it can make sense of, in however many parts it comes, and resets other connections.
func TestServerAnswers(t *testing.T) {
	const header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02"
	h := makeHeader(headerSize, 7)
	message := string(h[:])
	for _, test := range []struct{ name, headers, sent, want string }{
		// Other streams may keep the server busy until two questions have come, and the client would wait for ever.
		{"counts as often as asked", "-headers=false", "ccc", strings.Repeat("\x00", 3*2*8)},
		{"header", "-headers", header + message, message},
		{"no header", "-headers", message, ""},
		{"header of a connection by the proxy itself", "-headers", header[:12] + "\x20" + header[13:], ""},
		{"header in version 1", "-headers", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			at, _, _ := serveAt(t, test.headers)
			conn := rig.Dial(t, "tcp", netip.MustParseAddrPort(at)).(*net.TCPConn)
			for part := range slices.Chunk([]byte(test.sent), 5) {
				if _, err := conn.Write(part); err != nil {
					break // it was reset before
				}
			}
			got := make([]byte, max(1, len(test.want)))
			n, err := io.ReadFull(conn, got)
			if string(got[:n]) != test.want || (err == nil) != (test.want != "") || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q is answered %q, %v; want %q", test.sent, got[:n], err, test.want)
			}
			if err == nil {
				failure.Check(conn.CloseWrite())
				if n, err := conn.Read(got); !errors.Is(err, io.EOF) {
					t.Errorf("%q is answered %d bytes more than %q, %v", test.sent, n, test.want, err)
				}
			}
		})
	}
}

func TestIdleHoldsItsSockets(t *testing.T) {
	const conns = 100 // more than are opened at a time
	at, _, pid := serveAt(t)
	before := descriptors(pid)
	start(t, "idle", "-to", at, "-conns", strconv.Itoa(conns))
	if n := descriptors(pid) - before; n != conns {
		t.Errorf("the server holds %d connections, want %d", n, conns)
	}
	client := start(t, "idle", "-datagrams", "-to", at, "-conns", strconv.Itoa(conns))
	if n := descriptors(client); n < conns {
		t.Errorf("the client of datagrams holds %d descriptors, want more than %d", n, conns)
	}
}

func descriptors(pid int) int {
	return len(failure.Must(os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")))
}

// A datagram without an answer is given up and sent again, and what answers it too late does not count.
func TestLostDatagrams(t *testing.T) {
	socket := failure.Must(net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	asked := make(chan int, 1)
	go func() { asked <- answerSecond(socket) }()
	start(t, "idle", "-datagrams", "-to", socket.LocalAddr().String())
	failure.Check(socket.Close())
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
		answer func(message []byte) []byte
		want   string
	}{
		{"another number", func(m []byte) []byte { m[7]++; return m }, "answered"},
		{"too much", func(m []byte) []byte { return append(m, 0) }, "65 bytes arrived of a message of 64"},
		{"half an answer", func(m []byte) []byte { return m[:32] }, "unexpected EOF"},
		{"no answer", func([]byte) []byte { return nil }, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			to := rig.Backend(t, func(conn *net.TCPConn) {
				message := make([]byte, 64)
				_, err := io.ReadFull(conn, message)
				rig.Check(t, err)
				_, err = conn.Write(test.answer(message))
				rig.Check(t, err)
			})
			wantFailure(t, test.want, "exchange", "-to", to.String())
		})
	}
}

// wantFailure wants the program to fail, and to say why.
func wantFailure(t *testing.T, why string, args ...string) {
	t.Helper()
	cmd := program(t, args...)
	cmd.Stderr = nil // it is in the output
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), why) {
		t.Errorf("%q: %v: %q does not tell %q", args, err, out, why)
	}
}

// A client whose message is not answered in the time has measured nothing, but beside streams, how long it has waited.
func TestNoAnswerInTime(t *testing.T) {
	at, _, _ := serveAt(t)
	start(t, "readers", "-to", at)
	answersOnce := rig.Backend(t, func(conn *net.TCPConn) {
		_, err := io.CopyN(conn, conn, 64)
		rig.Check(t, err)
		_, _ = io.Copy(io.Discard, conn) // until the client has ended
	})
	args := []string{"exchange", "-to", answersOnce.String(), "-counts", at, "-time", "1s"}
	wantFailure(t, "no answer within 1s", args...)
	var v values
	failure.Check(json.Unmarshal(failure.Must(program(t, append(args, "-beside")...).Output()), &v))
	if v["p50-us"] < 1e6 || v["p99-us"] != v["p50-us"] || v["exchange/s"] != 0 || v["Gbit/s"] <= 0 {
		t.Errorf("beside streams: %v", v)
	}
}

func TestHeaderInPieces(t *testing.T) {
	whole := make([]byte, 20)
	header := makeHeader(len(whole), 7)
	copy(whole, header[:])
	var c conn
	for i := range whole {
		if done := failure.Must(c.take(whole[i : i+1])); done != (i == len(whole)-1) {
			t.Fatalf("whole: %v after %d of %d bytes", done, i+1, len(whole))
		}
	}
	if c.incoming != header {
		t.Errorf("the header is %x, want %x", c.incoming, header)
	}
}

// The time for which a client reads CPU times, and takes no answers, is not their latency.
func TestTimeAwayIsNoLatency(t *testing.T) {
	at, _, _ := serveAt(t)
	for _, datagrams := range []bool{false, true} {
		to := netip.MustParseAddrPort(at)
		c := newClient(request{to: to, conns: 1, ports: 1, size: 64, window: 1, datagrams: datagrams})
		var fd int
		c.establish(1, 1, func(opened int) { fd = opened })
		c.ask(fd)
		c.away += time.Hour
		c.latencies = c.latencies[:0]
		c.run(patience, func(int) bool { return false })
		if len(c.latencies) != 1 || c.latencies[0] > 0 {
			t.Errorf("datagrams %v: the latencies are %v, want one that is an hour less", datagrams, c.latencies)
		}
		c.close(fd)
		c.close(c.epoll)

		var away []time.Duration
		c.measure("answer", func(time.Duration) { away, c.latencies = append(away, c.away), append(c.latencies, 1) })
		if away = append(away, c.away); len(away) != 3 || away[1] <= away[0] || away[2] <= away[1] {
			t.Errorf("datagrams %v: away for %v in the end, want more with each reading", datagrams, away)
		}
	}
}
