package udp

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// moby#49649, moby#47879: a datagram in either direction keeps the flow, and with it the port the backend knows.
func TestMoby49649EitherDirectionRefreshes(t *testing.T) {
	onEach(t, testMoby49649EitherDirectionRefreshes)
}

func testMoby49649EitherDirectionRefreshes(t *testing.T, e engine) {
	inward := func(t *testing.T, client, backend *net.UDPConn, _ netip.AddrPort) {
		send(t, client, []byte("in"))
		expect(t, backend, []byte("in"))
	}
	outward := func(t *testing.T, client, backend *net.UDPConn, flow netip.AddrPort) {
		reply(t, backend, []byte("out"), flow)
		expect(t, client, []byte("out"))
	}
	for _, c := range []struct {
		name string
		turn func(t *testing.T, client, backend *net.UDPConn, flow netip.AddrPort)
	}{
		{"the client alone speaks", inward},
		{"the backend alone speaks", outward},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r := e.newRelay(t, "127.0.0.1", addressOf(backend), Options{Timeout: time.Minute})
			clock := new(clock).set(r)
			start(t, r)
			client := dial(t, at(r, "127.0.0.1"))
			send(t, client, []byte("hello"))
			flow := expect(t, backend, []byte("hello"))
			for range 5 {
				clock.advance(time.Minute - 1)
				c.turn(t, client, backend, flow)
				r.sweepNow()
			}
			if s := r.Stats(); s.Flows != 1 || s.Expired != 0 {
				t.Fatalf("%d flows, %d expired, want 1 and 0", s.Flows, s.Expired)
			}
			clock.advance(time.Minute)
			r.sweepNow()
			if s := r.Stats(); s.Flows != 0 || s.Expired != 1 {
				t.Fatalf("%d flows, %d expired after the timeout, want 0 and 1", s.Flows, s.Expired)
			}
			exchange(t, client, backend, []byte("again"))
		})
	}
}

// The sweeper runs by itself, again for later flows, and again after the table was empty.
func TestIdleFlowsExpire(t *testing.T) { onEach(t, testIdleFlowsExpire) }

func testIdleFlowsExpire(t *testing.T, e engine) {
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{Timeout: 20 * time.Millisecond})
	for round := uint64(1); round <= 3; round++ {
		for range 3 {
			send(t, dial(t, at(r, "127.0.0.1")), []byte("hello"))
			receive(t, backend)
		}
		waitFor(t, "expiry", func() bool { s := r.Stats(); return s.Expired == 3*round && s.Flows == 0 })
	}
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pace backoff
		pauses := func(n int) (taken []time.Duration) {
			for range n {
				before := time.Now()
				pace.pause(nil)
				taken = append(taken, time.Since(before))
			}
			return taken
		}
		for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 100, 100} {
			if got := pauses(1)[0]; got != want*time.Millisecond {
				t.Errorf("pause %d took %v, want %v", i, got, want*time.Millisecond)
			}
		}
		pace.reset()
		if got := pauses(1)[0]; got != 0 {
			t.Errorf("first pause after a success took %v", got)
		}
		pauses(20)
		done := make(chan struct{})
		close(done)
		before := time.Now()
		pace.pause(done)
		if took := time.Since(before); took != 0 {
			t.Errorf("pause took %v when done", took)
		}
	})
}
