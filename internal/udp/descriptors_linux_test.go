package udp

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/budget"
)

// Evicted and expired flows give their descriptors back.
func TestMoby11185EvictedFlowsCloseTheirSockets(t *testing.T) {
	onEach(t, testMoby11185EvictedFlowsCloseTheirSockets)
}

func testMoby11185EvictedFlowsCloseTheirSockets(t *testing.T, e engine) {
	const limit = 4
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{MaxFlows: limit})
	for range limit {
		exchange(t, dial(t, at(r, "127.0.0.1")), backend, []byte("first"))
	}
	before := openSockets(t)
	const more = 50
	for range more {
		exchange(t, dial(t, at(r, "127.0.0.1")), backend, []byte("next"))
	}
	if opened := openSockets(t) - before; opened != more { // the clients' own
		t.Errorf("%d sockets opened for %d clients", opened, more)
	}
}

// openSockets counts the sockets of this process.
func openSockets(t *testing.T) int {
	t.Helper()
	n := 0
	for _, target := range descriptors(t) {
		if strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// descriptors lists what is open, and as what.
func descriptors(t *testing.T) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := map[int]string{}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // the descriptor that listed the directory
		}
		if err != nil {
			t.Fatal(err)
		}
		open[fd] = target
	}
	return open
}

// limitDescriptors leaves this process spare more descriptors until the test ends.
func limitDescriptors(t *testing.T, spare int) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit, open := 0, descriptors(t)
	for ; spare > 0; limit++ {
		if _, used := open[limit]; !used {
			spare--
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
}

// Out of descriptors long before the table is full, the relay serves every client at the expense of the oldest.
func TestOutOfDescriptorsServesNewClients(t *testing.T) {
	onEach(t, testOutOfDescriptorsServesNewClients)
}

func testOutOfDescriptorsServesNewClients(t *testing.T, e engine) {
	const clients, spare = 40, 8
	var told reports
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{MaxFlows: 1000, Report: told.add})
	conns := make([]*net.UDPConn, clients)
	for i := range conns {
		conns[i] = dial(t, at(r, "127.0.0.1"))
	}
	limitDescriptors(t, spare)
	for round := range 3 {
		for i, conn := range conns {
			exchange(t, conn, backend, fmt.Appendf(nil, "client %d, round %d", i, round))
		}
	}
	s := r.Stats()
	if s.Dropped != 0 || s.Evicted < 3*clients-2*spare || s.Flows > spare+1 {
		t.Errorf("%d dropped, %d evicted, %d flows: descriptors for %d", s.Dropped, s.Evicted, s.Flows, spare)
	}
	if n := told.count(syscall.EMFILE); uint64(n) != s.Evicted {
		t.Errorf("EMFILE reported %d times for %d evictions", n, s.Evicted)
	}
}

// Where there is nobody to evict the datagram is dropped, and the relay waits for better times.
func TestOutOfDescriptorsIsOutlived(t *testing.T) { onEach(t, testOutOfDescriptorsIsOutlived) }

func testOutOfDescriptorsIsOutlived(t *testing.T, e engine) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	client := dial(t, at(r, "127.0.0.1"))
	t.Run("none left", func(t *testing.T) {
		limitDescriptors(t, 0)
		send(t, client, []byte("lost"))
		waitFor(t, "drop", func() bool { return r.Stats().Dropped == 1 })
		waitFor(t, "report", func() bool { return told.count(syscall.EMFILE) == 1 })
	})
	exchange(t, client, backend, []byte("after"))
}

func TestTableFitsDescriptorLimit(t *testing.T) { onEach(t, testTableFitsDescriptorLimit) }

func testTableFitsDescriptorLimit(t *testing.T, e engine) {
	const spare = 100
	frontend := listen(t, "127.0.0.1")
	backend := listen(t, "127.0.0.1")
	limitDescriptors(t, spare)
	r := e.newRelayOn(t, frontend, addressOf(backend), Options{})
	if limit, got := budget.Limit(), r.settings().MaxFlows; got != limit/4*3 {
		t.Errorf("at most %d flows with %d descriptors, want three quarters", got, limit)
	}
}

// Whether the source of a flow's socket has left the host cannot be told without a descriptor. The flow gives its own.
func TestOutOfDescriptorsOutdatedFlowGoes(t *testing.T) {
	backend := addressOf(listen(t, "127.0.0.1"))
	source := backend.Addr()
	fresh := func() (netip.Addr, error) { return freshSource(backend) }
	if outdated(source, fresh) {
		t.Error("outdated, with a descriptor")
	}
	limitDescriptors(t, 0)
	if !outdated(source, fresh) {
		t.Error("not outdated, without a descriptor")
	}
}
