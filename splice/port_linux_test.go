package splice_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/splice"
)

// addPort serves a fresh port.
func addPort(t *testing.T, e *splice.Engine, backend netip.AddrPort, o splice.Options) (*splice.Port, netip.AddrPort) {
	t.Helper()
	fd, addr := rig.Bind(t, rig.Loopback)
	p, err := e.AddWith(fd, backend, o)
	rig.Must(t, err)
	return p, addr
}

// TestSetBackend: new connections go to the new backend, and those that exist stay where they are.
func TestSetBackend(t *testing.T) {
	e := newEngine(t, splice.Options{})
	p, addr := addPort(t, e, greeter(t, "first"), splice.Options{})
	conn := greeted(t, addr, "first")
	second := greeter(t, "second")
	rig.Must(t, p.SetBackend(second))
	rig.Check(t, greeted(t, addr, "second").Close())
	rig.Exchange(t, conn, []byte("still the first"))
	if p.Backend() != second {
		t.Errorf("the backend is %v, want %v", p.Backend(), second)
	}
	if err := p.SetBackend(netip.AddrPort{}); err == nil {
		t.Error("a backend without an address was taken")
	}
	rig.Check(t, greeted(t, addr, "second").Close())
	rig.Check(t, p.Close())
	if err := p.SetBackend(second); err == nil {
		t.Error("a port that is closed took a backend")
	}
}

// TestSetBackendWhileAccepting: a connection that was accepted before the backend was exchanged goes to the one before. Its
// socket may be of another family than the new one's.
func TestSetBackendWhileAccepting(t *testing.T) {
	e := newEngine(t, splice.Options{})
	ports := make(chan *splice.Port, 1)
	e.AfterAccept(func() { rig.Check(t, (<-ports).SetBackend(netip.MustParseAddrPort("[::1]:1"))) })
	fd, addr := rig.Bind(t, rig.Loopback)
	p, err := e.Add(fd, greeter(t, "first"))
	rig.Must(t, err)
	ports <- p
	rig.Exchange(t, greeted(t, addr, "first"), []byte("hello"))
	if s := p.Stats(); s.DialErrors != 0 {
		t.Errorf("%v; want no dial errors", s)
	}
}

// TestSetOptions: a connection follows the policy, and the next one is made with all of them.
func TestSetOptions(t *testing.T) {
	e := newEngine(t, splice.Options{})
	p, addr := addPort(t, e, greeter(t, "hello"), splice.Options{Policy: splice.Never})
	conn := greeted(t, addr, "hello")
	for _, test := range []struct {
		policy  splice.Policy
		spliced bool
	}{{splice.Never, false}, {splice.Always, true}, {splice.Never, false}} {
		rig.Must(t, p.SetOptions(splice.Options{Policy: test.policy, KeepAlive: net.KeepAliveConfig{Count: 3}}))
		before := p.Stats()
		rig.Exchange(t, conn, make([]byte, 1<<20))
		rig.Until(t, "all bytes are counted", func() bool {
			s := p.Stats()
			return s.Spliced+s.Copied-before.Spliced-before.Copied >= 2<<20
		})
		if s := p.Stats(); (s.Spliced > before.Spliced) != test.spliced {
			t.Errorf("policy %d: %v, before %v", test.policy, s, before)
		}
	}
	greeted(t, addr, "hello")
	rig.Until(t, "two legs have a TCP_KEEPCNT of 9 and two of 3", func() bool {
		counts := make(map[int]int)
		for _, fd := range e.Legs() {
			n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
			rig.Must(t, err)
			counts[n]++
		}
		return counts[3] == 2 && counts[9] == 2
	})
}

// TestAbort: a port that is aborted is gone, with its connections, and the others are not.
func TestAbort(t *testing.T) {
	e := newEngine(t, splice.Options{})
	p, addr := addPort(t, e, greeter(t, "first"), splice.Options{})
	_, other := addPort(t, e, greeter(t, "second"), splice.Options{})
	mine, others := greeted(t, addr, "first"), greeted(t, other, "second")
	rig.Check(t, p.Abort())
	if _, err := io.Copy(io.Discard, mine); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection ended by %v, want a reset", err)
	}
	if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a dial gave %v, want it refused", err)
	}
	rig.Exchange(t, others, []byte("still here"))
	rig.Check(t, errors.Join(p.Abort(), p.Close()))
}

// TestStatsOfPorts: each port counts for itself, and the engine sums up, also what ports counted that are no more.
func TestStatsOfPorts(t *testing.T) {
	e := newEngine(t, splice.Options{})
	var ports [2]*splice.Port
	for i := range ports {
		var addr netip.AddrPort
		ports[i], addr = addPort(t, e, greeter(t, "hello"), splice.Options{})
		for range 2 + i {
			rig.Check(t, greeted(t, addr, "hello").Close())
		}
	}
	rig.Until(t, "all have ended", func() bool { return e.Stats().Active == 0 })
	for i, p := range ports {
		if s := p.Stats(); s.Accepted != uint64(2+i) || s.Copied != s.Accepted*5 {
			t.Errorf("port %d: %v", i, s)
		}
		rig.Check(t, p.Close())
		e.Group().First().Do(func() {}) // behind its end there
		if s := p.Stats(); s.Accepted != uint64(2+i) || s.Copied != s.Accepted*5 {
			t.Errorf("port %d, closed: %v", i, s)
		}
	}
	if s := e.Stats(); s.Accepted != 5 || s.Copied != 25 {
		t.Errorf("%v, want 5 accepted and 25 bytes copied", s)
	}
}

// TestStatsWithPortsThatGo: what a connection of a closed port counts is not lost, wherever it has been meanwhile.
func TestStatsWithPortsThatGo(t *testing.T) {
	const size = 64
	e := newEngine(t, splice.Options{})
	g := e.Group()
	g.Hold()
	p, addr := addPort(t, e, greeter(t, "hello"), splice.Options{})
	conn := greeted(t, addr, "hello")
	rig.Check(t, p.Close())
	other := g.Grow()
	for i := range 10 {
		rig.Exchange(t, conn, make([]byte, size))
		from, to := g.First(), other
		if i%2 == 1 {
			from, to = to, from
		}
		from.Do(func() { from.GiveAway(to) })
	}
	rig.Check(t, conn.Close())
	rig.Until(t, "it has ended", func() bool { return e.Stats().Active == 0 })
	if s := e.Stats(); s.Accepted != 1 || s.Copied != 5+10*2*size {
		t.Errorf("%v, want 1 accepted and %d copied", s, 5+10*2*size)
	}
}

// TestReportMayAsk: no lock is held while a failure is reported.
func TestReportMayAsk(t *testing.T) {
	silent := splice.Options{AcceptProxyProtocol: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, DialTimeout: time.Millisecond}
	for op, test := range map[string]struct {
		options splice.Options
		accepts []unix.Errno // what accept fails with
	}{
		"dial":         {},
		"proxy header": {options: silent},
		"accept":       {accepts: []unix.Errno{unix.EMFILE}},
	} {
		t.Run(op, func(t *testing.T) {
			e := newEngine(t, splice.Options{})
			e.FailCalls(test.accepts, nil)
			asked, added := make(chan splice.Stats, 1), make(chan struct{})
			var p *splice.Port
			o := test.options
			o.Report = func(told string, _, _ netip.AddrPort, err error) {
				if told != op {
					t.Errorf("told of %s: %v", told, err)
				}
				<-added
				sum := e.Stats()
				rig.Check(t, errors.Join(p.SetBackend(p.Backend()), p.SetOptions(o), p.Close()))
				asked <- sum
			}
			fd, addr := rig.Bind(t, rig.Loopback)
			p, err := e.AddWith(fd, rig.Refusing(t), o)
			rig.Must(t, err)
			close(added)
			rig.WantReset(t, addr)
			if s := <-asked; s.DialErrors+s.HeadersRefused+s.AcceptErrors != 1 {
				t.Errorf("%v, want 1 failure", s)
			}
		})
	}
}

// TestPortsNeedNoRoundOverLoops: ports come, go and are read while no loop takes a turn.
func TestPortsNeedNoRoundOverLoops(t *testing.T) {
	const loops, ports = 8, 1000
	e := newEngine(t, splice.Options{})
	g := e.Group()
	g.Hold()
	stand := make(chan struct{})
	all := []*eventloop.Loop{g.First()}
	for range loops - 1 {
		all = append(all, g.Grow())
	}
	for _, l := range all {
		l.Post(func() { <-stand })
	}
	backend := greeter(t, "hello")
	var addrs []netip.AddrPort
	for i := range ports {
		p, addr := addPort(t, e, backend, splice.Options{})
		if s := p.Stats(); s != (splice.Stats{}) {
			t.Fatalf("%v", s)
		}
		if i%2 == 0 {
			rig.Check(t, p.Close())
			continue
		}
		addrs = append(addrs, addr)
	}
	close(stand)
	for _, addr := range addrs[:16] {
		rig.Check(t, greeted(t, addr, "hello").Close())
	}
}

// TestPortsComeAndGoBesideStreams: a thousand ports come, are read and go while eight loops carry 64 streams. How long that
// takes is logged: TestPortsNeedNoRoundOverLoops shows that it is no matter of the loops.
func TestPortsComeAndGoBesideStreams(t *testing.T) {
	const loops, streams, rounds, ports = 8, 64, 10, 100
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(loops))
	e := newEngine(t, splice.Options{})
	e.Group().Hold()
	for range loops - 1 {
		e.Group().Grow()
	}
	backend, echo := greeter(t, "hello"), rig.Backend(t, rig.Echo)
	listener, addr := rig.Bind(t, rig.Loopback)
	rig.Must(t, unix.Listen(listener, streams))
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); traffic.Wait() })
	defer end()
	for i := range streams { // they are accepted in one batch, and so spread over all loops
		conn := rig.Dial(t, "tcp", addr)
		traffic.Go(func() { exchangeUntil(t, stop, conn, i, 1<<15) })
	}
	carries, err := e.AddWith(listener, echo, splice.Options{Policy: splice.Always})
	rig.Must(t, err)
	var took time.Duration
	timed := func(f func()) {
		begin := time.Now()
		f()
		took += time.Since(begin)
	}
	for range rounds {
		before := carries.Moved()
		var open []*splice.Port
		var conns []net.Conn
		for i := range ports {
			var p *splice.Port
			var addr netip.AddrPort
			timed(func() {
				p, addr = addPort(t, e, backend, splice.Options{})
				if s := p.Stats(); s != (splice.Stats{}) {
					t.Errorf("%v of a new port", s)
				}
			})
			if i%2 == 0 {
				open, conns = append(open, p), append(conns, rig.Dial(t, "tcp", addr))
				continue
			}
			timed(func() { rig.Check(t, p.Close()) })
			if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a dial of a port that is closed gave %v, want it refused", err)
			}
		}
		for i, conn := range conns {
			wantGreeting(t, conn, "hello")
			timed(func() {
				if s := open[i].Stats(); s.Accepted != 1 {
					t.Errorf("%v, want 1 accepted", s)
				}
				rig.Check(t, open[i].Close())
			})
			rig.Check(t, conn.Close())
		}
		rig.Until(t, "bytes have moved on all loops", func() (all bool) {
			moved := carries.Moved()
			all = len(moved) == loops
			for on, n := range moved {
				all = all && n > before[on]
			}
			return all
		})
	}
	t.Logf("%d ports in %v", rounds*ports, took)
	end()
	if s := carries.Stats(); s.Active != streams || s.Aborted != 0 {
		t.Errorf("%v, want %d active, and none aborted", s, streams)
	}
}

// TestSharedLoops: an engine on loops of others leaves them running, and takes nothing of its own along.
func TestSharedLoops(t *testing.T) {
	g, err := eventloop.New(eventloop.Options{})
	rig.Must(t, err)
	defer g.Close()
	for range 2 {
		e, err := splice.On(g, splice.Options{Policy: splice.Always}, nil)
		rig.Must(t, err)
		_, addr := addPort(t, e, greeter(t, "hello"), splice.Options{})
		conn := greeted(t, addr, "hello")
		rig.Exchange(t, conn, bytes.Repeat([]byte("x"), 1<<20))
		rig.Must(t, e.Close())
		if _, err := io.Copy(io.Discard, conn); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the connection ended by %v, want a reset", err)
		}
		if s := e.Stats(); s.Pipes != 0 || s.Active != 0 {
			t.Errorf("%v are left of a closed engine", s)
		}
	}
	if !g.First().Do(func() {}) {
		t.Error("the loops ended with the engine")
	}
}
