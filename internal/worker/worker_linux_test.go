package worker

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
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

// pair is a connection to a worker's socket, and the worker's end of it.
func pair(t *testing.T) (client, worker *net.UnixConn) {
	t.Helper()
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: "@", Net: "unixpacket"}) // any name
	rig.Must(t, err)
	defer func() { rig.Must(t, listener.Close()) }()
	client, err = net.DialUnix("unixpacket", nil, listener.Addr().(*net.UnixAddr))
	rig.Must(t, err)
	worker, err = listener.AcceptUnix()
	rig.Must(t, err)
	for _, conn := range []*net.UnixConn{client, worker} {
		rig.Must(t, conn.SetDeadline(time.Now().Add(rig.Timeout)))
		t.Cleanup(func() { _ = conn.Close() }) // the test may have done it
	}
	return client, worker
}

// TestEndlessAnswer: who says to be a worker, and never comes to an end, does not fill the memory of who asks.
func TestEndlessAnswer(t *testing.T) {
	client, worker := pair(t)
	ended := make(chan error)
	go func() {
		part := bytes.Repeat([]byte("x"), piece)
		for err := error(nil); ; {
			if _, err = worker.Write(part); err != nil {
				ended <- err
				return
			}
		}
	}()
	var answer List
	err := exchange(client, "list", &answer)
	if want := fmt.Sprintf("process %d goes on to answer after", os.Getpid()); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	rig.Must(t, client.Close())
	if err := <-ended; !hasEnded(err) {
		t.Error(err)
	}
}
