//go:build e2e && linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestLocalBypass: clients of the host reach the container over IPv4, and over IPv6, which it does not have, without the
// proxy. A container that is stopped is nobody's, and one that is started again is reached again.
func TestLocalBypass(t *testing.T) {
	d := startBypassing(t)
	c := d.run(t, tcp(httpPort))
	hierarchy := "/sys/fs/cgroup"
	if _, err := os.Stat(hierarchy + "/unified"); err == nil {
		hierarchy += "/unified" // beside version 1
	}
	says(t, false, "bypass_con4", "bpftool", "cgroup", "show", hierarchy)
	says(t, false, "key", "bpftool", "map", "dump", "name", "bypass_ports")
	for range 3 {
		for _, host := range []string{"127.0.0.1", "::1", gateway} {
			expectBypassed(t, 1, func() { get(t, pageURL(host, httpPort)) }, httpPort)
		}
		c.stop(t)
		for _, host := range []string{"127.0.0.1", "::1"} {
			if conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(httpPort)), patience); err == nil {
				t.Errorf("%s: somebody is at %v though the container was stopped", host, conn.RemoteAddr())
				_ = conn.Close() // it should not be there
			}
		}
		c.start(t)
		c.awaitServer(t)
	}
}

// TestOthersAreNotBypassed: clients in a container and in another network namespace come to the port through the proxy,
// and to what is at the same port of their own loopback.
func TestOthersAreNotBypassed(t *testing.T) {
	d := startBypassing(t)
	d.runAs(t, settings{Hostname: "publisher"}, tcp(httpPort))
	t.Run("container", func(t *testing.T) {
		other := d.runAs(t, settings{Hostname: "other"})
		expect := func(host, want string) {
			t.Helper()
			query := url.Values{"url": {pageURL(host, httpPort) + "hostname"}}
			if got := get(t, pageURL(other.ip(t), httpPort)+"fetch?"+query.Encode()); got != want {
				t.Errorf("at %s: got %q, want %q", host, got, want)
			}
		}
		expectRelayed(t, 1, func() { expect(gateway, "publisher") }, httpPort)
		expectBypassed(t, 0, func() { expect("127.0.0.1", "other") }, httpPort)
	})
	t.Run("namespace", func(t *testing.T) {
		const near, far = "198.18.9.1", "198.18.9.2"
		here, err := netlab.Here()
		rig.Must(t, err)
		t.Cleanup(here.Close)
		other := rig.Namespace(t)
		rig.Must(t, netlab.Cable("cable", here, netip.MustParsePrefix(near+"/30"), other, netip.MustParsePrefix(far+"/30")))
		var l *net.TCPListener
		rig.Must(t, other.Do(func() (err error) {
			l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: httpPort})
			return err
		}))
		rig.Serve(t, l, func(conn *net.TCPConn) { // the client notices errors
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\nother")
		})
		expect := func(host, want string) {
			t.Helper()
			var got string
			rig.Must(t, other.Do(func() (err error) {
				got, err = hostnameAt(t.Context(), host, httpPort)
				return err
			}))
			if got != want {
				t.Errorf("at %s: got %q, want %q", host, got, want)
			}
		}
		expectRelayed(t, 1, func() { expect(near, "publisher") }, httpPort)
		expectBypassed(t, 0, func() { expect("127.0.0.1", "other") }, httpPort)
	})
}

// startBypassing starts a daemon whose TCP ports local clients are to reach without the proxy, or not at all.
func startBypassing(t *testing.T) *daemon {
	t.Helper()
	if filepath.Base(program) != "portsplice-shim" {
		t.Skip("there is no worker, which the bypass takes")
	}
	t.Setenv("PORTSPLICE_LOCAL_BYPASS", "require")
	return startDaemon(t)
}

// some is a number of connections that is the client's business, but not none.
const some = -1

// expectBypassed fails the test unless local clients reach the ports that they use without the proxy, by as many
// connections.
func expectBypassed(t testing.TB, connections int, use func(), ports ...int) {
	t.Helper()
	before := countersOf(t, ports...)
	use()
	after := countersOf(t, ports...)
	if n := after.accepted - before.accepted; n != 0 {
		t.Errorf("the proxy has accepted %d connections, want none", n)
	}
	switch n := after.bypassed - before.bypassed; {
	case connections == some && n == 0:
		t.Error("no connection was bypassed")
	case connections != some && n != connections:
		t.Errorf("%d connections were bypassed, want %d", n, connections)
	}
}

// expectRelayed fails the test unless clients reach the ports that they use through the proxy, by as many connections.
func expectRelayed(t testing.TB, connections int, use func(), ports ...int) {
	t.Helper()
	before := countersOf(t, ports...)
	use()
	after := countersOf(t, ports...)
	if accepted, bypassed := after.accepted-before.accepted, after.bypassed-before.bypassed; accepted != connections || bypassed != 0 {
		t.Errorf("the proxy has accepted %d connections and %d were bypassed, want %d and 0", accepted, bypassed, connections)
	}
}

// counters are what is counted of published ports.
type counters struct {
	accepted, bypassed int // connections by the proxy, and without it
	worker             int // whose counters they are: its process
}

// countersOf asks portsplicectl about TCP ports, each with the addresses that it is published on.
func countersOf(t testing.TB, ports ...int) counters {
	t.Helper()
	sum, err := askCounters(t.Context(), ports...)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// askCounters may fail while a worker ends.
func askCounters(ctx context.Context, ports ...int) (sum counters, err error) {
	out, err := exec.CommandContext(ctx, filepath.Join(filepath.Dir(program), "portsplicectl"), "ps", "--json").Output()
	if err != nil {
		return sum, fmt.Errorf("portsplicectl ps: %w", err)
	}
	var rows []struct {
		Protocol, Published, Namespace string
		Worker                         int
		Counters                       map[string]int
	}
	if err := json.Unmarshal(out, &rows); err != nil {
		return sum, fmt.Errorf("portsplicectl ps: %w:\n%s", err, out)
	}
	for _, r := range rows {
		for _, number := range ports {
			if r.Protocol == "tcp" && r.Namespace == "" && strings.HasSuffix(r.Published, fmt.Sprintf(":%d", number)) {
				sum.accepted += r.Counters["accepted"]
				sum.bypassed += r.Counters["bypassed"]
				sum.worker = r.Worker
			}
		}
	}
	if sum.worker <= 0 { // to kill it would be to kill the tests
		return sum, fmt.Errorf("portsplicectl ps: no port %v:\n%s", ports, out)
	}
	return sum, nil
}

// TestReplacedContainers has containers take each other's place at ports, and at addresses of their network.
func TestReplacedContainers(t *testing.T) {
	d := startBypassing(t)
	speakers := newSpeakers(t, d)
	for _, s := range speakers {
		s.start(t)
		rig.Must(t, s.disconnect(t.Context(), speakersNetwork))
	}
	// A container that joins a network is published on IPv4 only (dockerd 20.10).
	play{
		hosts:  []string{"127.0.0.1"},
		enter:  func(s speaker) error { return s.connect(t.Context(), speakersNetwork, s.address) },
		leave:  func(s speaker) error { return s.disconnect(t.Context(), speakersNetwork) },
		silent: true,
	}.run(t, speakers)
}

// TestRestartedContainers does so with containers that end and start.
func TestRestartedContainers(t *testing.T) {
	d := startBypassing(t)
	play{
		hosts: []string{"127.0.0.1", "::1"},
		enter: func(s speaker) error { return s.begin(t.Context()) },
		leave: func(s speaker) error { return s.cut(t.Context()) },
	}.run(t, newSpeakers(t, d))
}

// speaker is a container that tells its name, with an address of its own and a port that it is published on.
type speaker struct {
	container
	name, address string
	port          int
}

const speakersNetwork = "speakers"

// newSpeakers creates one for each of two addresses at each of two ports.
func newSpeakers(t *testing.T, d *daemon) (speakers []speaker) {
	d.createNetwork(t, speakersNetwork, "198.19.200.0/24")
	for _, s := range []speaker{
		{name: "a", address: "198.19.200.10", port: 8080},
		{name: "b", address: "198.19.200.10", port: 8081},
		{name: "c", address: "198.19.200.11", port: 8080},
		{name: "d", address: "198.19.200.11", port: 8081},
	} {
		s.container = d.createAs(t, settings{
			Hostname:         s.name,
			HostConfig:       hostConfig{NetworkMode: speakersNetwork},
			NetworkingConfig: networkingConfig{map[string]endpoint{speakersNetwork: {ipamConfig{s.address}}}},
		}, port{"tcp", s.port, httpPort, ""})
		speakers = append(speakers, s)
	}
	return speakers
}

// entrances is how often a container starts, or joins the network, in a play.
const entrances = 100

// play is how speakers take turns.
type play struct {
	hosts        []string // where the audience connects
	enter, leave func(speaker) error
	silent       bool // a speaker that leaves does not end its connections
}

// run has speakers on stage, before local clients that ask all the time. What they reach at a port is the container that
// has the port, and nobody when there is none: a port that was still sent to the address that it had a moment ago would
// lead to the wrong one.
func (p play) run(t *testing.T, speakers []speaker) {
	a, b, c, d := speakers[0], speakers[1], speakers[2], speakers[3]
	audiences := map[int]*audience{
		a.port: gather(t, a.port, p.hosts, a.name, c.name),
		b.port: gather(t, b.port, p.hosts, b.name, d.name),
	}
	// With each turn the ports exchange their addresses. In the last, one is nobody's, and the other has the address that it had.
	turns := [][]speaker{{a, d}, {b, c}, {a, d}, {b}}
	for turn, entered := 0, 0; entered < entrances; turn++ {
		now := turns[turn%len(turns)]
		together(t, now, p.enter)
		entered += len(now)
		on := map[int]string{}
		for _, s := range now {
			on[s.port] = s.name
		}
		for number, audience := range audiences {
			audience.expect(on[number])
		}
		for number := range on {
			audiences[number].listen(20)
			if n := countersOf(t, number); n.bypassed == 0 {
				t.Errorf("turn %d: no connection to port %d was bypassed", turn, number)
			}
		}
		for _, audience := range audiences {
			audience.speaker.Store(nil)
		}
		together(t, now, p.leave)
		if p.silent {
			for number := range on {
				audiences[number].cutOff()
			}
		}
		if t.Failed() {
			return // what is wrong once is wrong each time
		}
	}
}

// together has speakers do something at the same time.
func together(t *testing.T, speakers []speaker, do func(speaker) error) {
	t.Helper()
	failed := make([]error, len(speakers))
	var all sync.WaitGroup
	for i, s := range speakers {
		all.Go(func() { failed[i] = do(s) })
	}
	all.Wait()
	rig.Must(t, errors.Join(failed...))
}

// TestKilledWorker: while there is no worker clients wait, and through the next one they reach the container without it
// again. Connections that were bypassed notice nothing.
func TestKilledWorker(t *testing.T) {
	d := startBypassing(t)
	d.runAs(t, settings{Hostname: "a"}, tcp(httpPort), tcp(echoPort))
	audience := gather(t, httpPort, []string{"127.0.0.1", "::1"}, "a")
	audience.expect("a")
	var conn net.Conn
	expectBypassed(t, 1, func() { conn = dial(t, "tcp", fmt.Sprintf("127.0.0.1:%d", echoPort)) }, echoPort)
	for range 2 { // three within ten seconds have the ports served without a worker
		audience.listen(100)
		before := countersOf(t, httpPort)
		if err := unix.Kill(before.worker, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		audience.listen(100)
		eventually(t, "another worker bypasses the port", func() bool {
			after, err := askCounters(t.Context(), httpPort)
			return err == nil && after.worker != before.worker && after.bypassed > 0
		})
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		echoStream(t, conn, 1000)
	}
	audience.dismiss()
	expectBypassed(t, 1, func() { get(t, pageURL("127.0.0.1", httpPort)) }, httpPort)
	expectBypassed(t, 1, func() { get(t, pageURL("::1", httpPort)) }, httpPort)
}
