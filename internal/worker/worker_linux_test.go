package worker

import (
	"bytes"
	"fmt"
	"net"
	"os"
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

// TestEndlessAnswer: who says to be a worker, and never comes to an end, does not fill the memory of who asks; nor do many.
func TestEndlessAnswer(t *testing.T) {
	t.Run("one", func(t *testing.T) { endlessAnswer(t, longestAnswer) })
	const left = 1 << 20
	unfinished.Add(longestAnswers - left)
	t.Run("one of many", func(t *testing.T) { endlessAnswer(t, left) })
	if held := unfinished.Add(left - longestAnswers); held != 0 {
		t.Errorf("%d bytes count as held", held)
	}
}

// endlessAnswer expects that a worker is given up soon after it has said so much.
func endlessAnswer(t *testing.T, most int) {
	t.Helper()
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
	var pid, said int
	if _, failed := fmt.Sscanf(fmt.Sprint(err), "process %d goes on to answer after %d bytes", &pid, &said); failed != nil ||
		pid != os.Getpid() || said <= most-piece || said > most+piece {
		t.Errorf("got %v, want that of process %d after %d bytes", err, os.Getpid(), most)
	}
	rig.Must(t, client.Close())
	if err := <-ended; !hasEnded(err) {
		t.Error(err)
	}
}
