package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/sourceport"
)

// rangeOf is a host with so many source ports, and a backend there.
type rangeOf struct {
	host        *netlab.Namespace
	first, last uint16
	backend     *net.UDPConn
	clients     int
}

func newRangeOf(t *testing.T, ports int) *rangeOf {
	t.Helper()
	r := &rangeOf{host: newNamespace(t), first: 40000, last: uint16(40000 + ports - 1)}
	must(t, r.host.Sysctl("ipv4/ip_local_port_range", fmt.Sprintf("%d %d", r.first, r.last)))
	r.backend = openIn(t, r.host, "udp", loopbackAt(5000), nil)
	return r
}

func loopbackAt(port int) *net.UDPAddr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }

func (r *rangeOf) serve(t *testing.T, e engine, port int, pool *sourceport.Pool, o Options) *rig {
	t.Helper()
	relay := e.newRelayOn(t, openIn(t, r.host, "udp", loopbackAt(port), nil), addressOf(r.backend), o)
	relay.setNumbers(pool)
	serveIn(t, r.host, relay)
	return relay
}

// ask has a new client of a relay exchange a datagram, and gives its flow's address.
func (r *rangeOf) ask(t *testing.T, relay *rig) netip.AddrPort {
	t.Helper()
	client := openIn(t, r.host, "udp", loopbackAt(6000+r.clients), net.UDPAddrFromAddrPort(relay.address))
	r.clients++
	return exchange(t, client, r.backend, fmt.Appendf(nil, "client %d", r.clients))
}

// Out of source ports, as when others of the host use them up, the relay serves every client all the same. One that was
// sized by its administrator takes all that there are.
func TestOutOfPortsServesNewClients(t *testing.T) { onEach(t, testOutOfPortsServesNewClients) }

func testOutOfPortsServesNewClients(t *testing.T, e engine) {
	const ports, clients = 4, 12
	var told reports
	host := newRangeOf(t, ports)
	r := host.serve(t, e, 5001, sourceport.NewPool(host.first, host.last), Options{MaxFlows: 100, Report: told.add})
	for range clients {
		host.ask(t, r)
	}
	if s := r.Stats(); s.Flows != ports || s.Evicted != clients-ports || s.Dropped != 0 {
		t.Errorf("stats %+v, want %d flows, %d evicted, none dropped", s, ports, clients-ports)
	}
	if n := told.count(unix.EAGAIN); n != clients-ports {
		t.Errorf("EAGAIN reported %d times, want %d", n, clients-ports)
	}
}

// Ports that are flooded, of one process or each of its own, share half of the host's source ports. A port that comes
// when all of them are taken is served all the same, and the host has the other half. What was given up is not given to
// the next client, who would get what its predecessor is answered.
func TestPortsShareHalfOfTheRange(t *testing.T) { onEach(t, testPortsShareHalfOfTheRange) }

func testPortsShareHalfOfTheRange(t *testing.T, e engine) {
	const ports, half, most, guests, clients = 80, 40, 30, 1, 100
	for _, c := range []struct {
		name string
		own  bool
	}{{"of one process", false}, {"each of its own", true}} {
		t.Run(c.name, func(t *testing.T) {
			var told reports
			host := newRangeOf(t, ports)
			pool := sourceport.NewPool(host.first, host.last)
			var relays []*rig
			for i := range 4 {
				if c.own {
					pool = sourceport.NewPool(host.first, host.last)
				}
				o := Options{MaxFlows: most, guests: guests, Report: told.add}
				relays = append(relays, host.serve(t, e, 5001+i, pool, o))
			}
			var flows []netip.AddrPort
			for range clients {
				flow := host.ask(t, relays[0])
				if recent := flows[max(0, len(flows)-half+1):]; slices.Contains(recent, flow) {
					t.Errorf("the flow from %v is of a port that was in use %d clients ago at most", flow, len(recent))
				}
				if flow.Port() < host.first+half {
					t.Errorf("the flow from %v is not of the pool's half", flow)
				}
				flows = append(flows, flow)
			}
			for _, r := range relays[1:] {
				for range clients / 5 {
					host.ask(t, r)
				}
			}
			total := 0
			for _, r := range relays {
				s := r.Stats()
				if total += int(s.Flows); s.Flows == 0 || s.Dropped != 0 {
					t.Errorf("%v; want flows, and none dropped", s)
				}
			}
			if total > half+len(relays)*guests {
				t.Errorf("%d flows in all, want at most half of %d ports, and %d", total, ports, len(relays)*guests)
			}
			for range half - len(relays)*guests {
				openIn(t, host.host, "udp", nil, loopbackAt(53))
			}
		})
	}
}

// Others take the whole pool while a port has flows: it goes on to serve each new client at the expense of its own, and
// the others keep theirs.
func TestPoolTakenByOthers(t *testing.T) { onEach(t, testPoolTakenByOthers) }

func testPoolTakenByOthers(t *testing.T, e engine) {
	const ports, half, mine, clients = 80, 40, 8, 60
	var told reports
	host := newRangeOf(t, ports)
	pool := sourceport.NewPool(host.first, host.last)
	r := host.serve(t, e, 5001, pool, Options{MaxFlows: half, guests: 1, Report: told.add})
	for range mine {
		host.ask(t, r)
	}
	others := 0
	for port := int(host.last) - half + 1; port <= int(host.last); port++ {
		must(t, host.host.Do(func() error {
			conn, err := net.ListenUDP("udp", loopbackAt(port))
			if errors.Is(err, unix.EADDRINUSE) {
				return nil
			}
			if err == nil {
				others++
				closeAfter(t, conn)
			}
			return err
		}))
	}
	for range clients {
		host.ask(t, r)
	}
	s := r.Stats()
	if others != half-mine || s.Flows == 0 || s.Flows > mine || s.Dropped != 0 || told.count(errNoNumber) == 0 {
		t.Errorf("%v beside %d of others; want 1 to %d flows beside %d, and none dropped", s, others, mine, half-mine)
	}
}

// What came to a flow's socket before it was connected is not taken for an answer of the backend.
func TestStrangersBeforeTheConnect(t *testing.T) {
	backend, stranger := listen(t, "127.0.0.1"), listen(t, "127.0.0.1")
	early := listen(t, "127.0.0.1")
	reply(t, stranger, []byte("not the backend"), addressOf(early))
	fd := descriptor(t, early)
	must(t, unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(addressOf(backend).Port())}))
	discard(fd)
	reply(t, backend, []byte("the backend"), addressOf(early))
	expect(t, early, []byte("the backend"))
}
