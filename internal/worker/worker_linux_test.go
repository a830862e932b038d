package worker

import (
	"net"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestEndWaitsForRequests: a worker without ports does not end while somebody is about to ask for one.
func TestEndWaitsForRequests(t *testing.T) {
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: "@", Net: "unixpacket"}) // any name
	rig.Must(t, err)
	w := &Worker{listener: listener, ports: make(map[*port]struct{})}
	w.ending = time.AfterFunc(time.Hour, w.end)
	ended := make(chan error, 1)
	go func() { ended <- w.accept() }()
	conn, err := net.DialUnix("unixpacket", nil, listener.Addr().(*net.UnixAddr))
	rig.Must(t, err)
	heard := func(n int) func() bool {
		return func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.meeting == n }
	}
	rig.Until(t, "the worker hears the shim", heard(1))
	w.end()
	another, err := net.DialUnix("unixpacket", nil, listener.Addr().(*net.UnixAddr))
	if err != nil {
		t.Errorf("the worker has ended: %v", err)
	} else {
		rig.Must(t, another.Close())
	}
	rig.Must(t, conn.Close())
	rig.Until(t, "nobody is there", heard(0))
	w.end()
	rig.Must(t, <-ended)
	w.ending.Stop()
}
