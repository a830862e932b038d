package udp

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
)

// audience collects what a relay tells of flows.
type audience struct {
	follows atomic.Bool
	mu      sync.Mutex
	told    []connection.Connection
}

func (a *audience) options(o Options) Options {
	o.Follows = a.follows.Load
	o.Observe = func(c connection.Connection) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.told = append(a.told, c)
	}
	return o
}

// wait waits until so much was told, and gives it.
func (a *audience) wait(t *testing.T, n int) []connection.Connection {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d times told", n), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.told) >= n
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.told
}

// A flow that is followed is told of when it begins and when it has ended, with the reason and what it has carried. One
// that began while nobody wanted to know is not.
func TestObserve(t *testing.T) { onEach(t, testObserve) }

func testObserve(t *testing.T, e engine) {
	var a audience
	backend := listen(t, "127.0.0.1")
	r := e.newRelay(t, "127.0.0.1", addressOf(backend), a.options(Options{MaxFlows: 2}))
	clock := new(clock).set(r)
	start(t, r)
	exchange(t, dial(t, at(r, "127.0.0.1")), backend, []byte("nobody wants to know"))
	a.follows.Store(true)

	evicted := dial(t, at(r, "127.0.0.1"))
	send(t, evicted, []byte("first")) // and has no answer
	expect(t, backend, []byte("first"))
	clock.advance(2 * time.Second)
	idle := dial(t, at(r, "127.0.0.1"))
	reply := exchange(t, idle, backend, []byte("second"))
	for range 50 { // in blocks, perhaps
		if _, err := backend.WriteToUDPAddrPort([]byte("0123456789"), reply); err != nil {
			t.Fatal(err)
		}
		expect(t, idle, []byte("0123456789"))
	}
	const nobody = len("nobody wants to know")
	counted := func(in, out int) {
		t.Helper()
		waitFor(t, "count of all bytes", func() bool {
			s := r.Stats()
			return s.BytesIn == uint64(in) && s.BytesOut == uint64(out)
		})
	}
	counted(nobody+5+6, nobody+6+500)
	a.wait(t, 3) // the first, the second, and that the first has made room
	clock.advance(2 * DefaultTimeout)
	r.sweepNow()
	a.wait(t, 4)
	stopped := dial(t, at(r, "127.0.0.1"))
	exchange(t, stopped, backend, []byte("third"))
	counted(nobody+5+6+5, nobody+6+500+5)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	byClient := map[string][]connection.Connection{}
	for _, c := range a.wait(t, 6) {
		byClient[c.Client.String()] = append(byClient[c.Client.String()], c)
	}
	second := uint64(len("second"))
	for conn, want := range map[interface{ String() string }]connection.Connection{
		addressOf(evicted): {FromClient: 5, Lasted: 2 * time.Second, End: connection.End{Reason: connection.Evicted}},
		addressOf(idle): {FromClient: second, FromBackend: second + 500, Lasted: 2 * DefaultTimeout,
			End: connection.End{Reason: connection.Idle}},
		addressOf(stopped): {FromClient: 5, FromBackend: 5, End: connection.End{Reason: connection.Stopped}},
	} {
		c := byClient[conn.String()]
		if len(c) != 2 || c[0].Phase != connection.Accepted || c[1].Phase != connection.Ended || c[0].Backend != addressOf(backend) {
			t.Errorf("of %v there is told %+v, want that it began and has ended", conn, c)
			continue
		}
		want.Phase, want.Client, want.Backend, want.By = connection.Ended, c[0].Client, c[0].Backend, connection.Proxy
		if c[1] != want {
			t.Errorf("told of %+v, want %+v", c[1], want)
		}
	}
	if len(byClient) != 3 {
		t.Errorf("told of %v, want 3 clients", byClient)
	}
}
