package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
)

// puppet is a worker that tells what a test wants, of a port that no other one has.
type puppet struct{ *net.UnixListener }

const selector = "198.18.0.1:443/tcp"

func newPuppet(t *testing.T) puppet {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: fmt.Sprintf("@portsplice/1/0/puppet-%d", os.Getpid()), Net: "unixpacket"})
	rig.Must(t, err)
	t.Cleanup(func() { _ = l.Close() }) // the test may have done it
	rig.Must(t, l.SetDeadline(time.Now().Add(rig.Timeout)))
	return puppet{l}
}

// asked waits for the question.
func (p puppet) asked(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := p.AcceptUnix()
	rig.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the test may have done it
	rig.Must(t, conn.SetDeadline(time.Now().Add(rig.Timeout)))
	b := make([]byte, 1<<10)
	n, err := conn.Read(b)
	rig.Must(t, err)
	if got := string(b[:n]); got != "trace "+selector {
		t.Fatalf("the worker is asked %q", got)
	}
	return conn
}

func tell(t *testing.T, conn *net.UnixConn, e worker.Event) {
	t.Helper()
	b, err := json.Marshal(e)
	rig.Must(t, err)
	_, err = conn.Write(b)
	rig.Must(t, err)
}

// start runs the command until its context is cancelled, and then gives its error.
func start(t *testing.T, args ...string) (out, err *rig.Output, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, err = new(rig.Output), new(rig.Output)
	root := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(trace())
	root.SetArgs(append([]string{"trace"}, args...))
	root.SetOut(out)
	root.SetErr(err)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	return out, err, func() error { cancel(); return <-ended }
}

// shows waits for a line that ends so. (Workers of other tests may be spoken of as well.).
func shows(t *testing.T, o *rig.Output, line string) {
	t.Helper()
	rig.Until(t, fmt.Sprintf("%q is shown", line), func() bool { return strings.Contains(o.String(), line+"\n") })
}

var events = []struct {
	event worker.Event
	text  string
}{
	{worker.Event{Event: "accepted"}, "accepted   198.18.0.1:443/tcp  192.0.2.1:5 → 172.17.0.2:80"},
	{worker.Event{Event: "connected", ConnectSeconds: 0.0015}, "connected  198.18.0.1:443/tcp  192.0.2.1:5 → 172.17.0.2:80  after 1.5ms"},
	{
		worker.Event{Event: "ended", DurationSeconds: 2, ReceivedBytes: 3, SentBytes: 4, EndedBy: "client", Reason: "closed"},
		"ended      198.18.0.1:443/tcp  192.0.2.1:5 → 172.17.0.2:80  3 bytes in, 4 bytes out, 2s, by client: closed",
	},
	{
		worker.Event{Event: "ended", EndedBy: "backend", Reason: "dial failed", Error: "refused"},
		"ended      198.18.0.1:443/tcp  192.0.2.1:5 → 172.17.0.2:80  0 bytes in, 0 bytes out, 0s, by backend: dial failed: refused",
	},
	{
		worker.Event{Event: "failed", Operation: "dial", Error: "refused"},
		"failed     198.18.0.1:443/tcp  192.0.2.1:5 → 172.17.0.2:80  dial: refused",
	},
	{worker.Event{Event: "dropped", Dropped: 7}, "dropped    7 events came faster than they could be shown"},
}

// TestTraceText: what a worker tells is shown at once, in words; another worker is followed when the first has ended.
func TestTraceText(t *testing.T) {
	p := newPuppet(t)
	out, err, stop := start(t, selector)
	conn := p.asked(t)
	tell(t, conn, worker.Event{Event: "tracing", Worker: 5})
	shows(t, err, "worker 5 serves no such port; waiting for one")
	at := time.Now()
	for _, e := range events {
		e.event.Time, e.event.Port, e.event.Client, e.event.Backend = at, selector, "192.0.2.1:5", "172.17.0.2:80"
		tell(t, conn, e.event)
		shows(t, out, at.Format("15:04:05.000000")+"  "+e.text)
	}
	rig.Must(t, conn.Close()) // the worker has ended
	conn = p.asked(t)
	tell(t, conn, worker.Event{Event: "tracing", Worker: 6, Ports: []string{selector}})
	shows(t, err, "tracing "+selector)
	rig.Check(t, stop())
	if n := strings.Count(out.String(), "\n"); n != len(events) {
		t.Errorf("%d lines, want %d", n, len(events))
	}
}

// TestTraceOfAnotherNamespace: a worker of another network namespace is followed, too, and what it tells says where it is.
func TestTraceOfAnotherNamespace(t *testing.T) {
	elsewhere := rig.Namespace(t)
	var p puppet
	var name string
	rig.Must(t, elsewhere.Do(func() (err error) {
		p = newPuppet(t)
		name, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}))
	inside := exec.Command("cat") // a process makes the namespace one that is found
	stdin, err := inside.StdinPipe()
	rig.Must(t, err)
	rig.Must(t, elsewhere.Do(inside.Start))
	defer func() { rig.Check(t, errors.Join(stdin.Close(), inside.Wait())) }()
	out, said, stop := start(t, selector)
	conn := p.asked(t)
	tell(t, conn, worker.Event{Event: "tracing", Worker: 6, Ports: []string{selector}})
	shows(t, said, "tracing "+selector+" in "+name)
	tell(t, conn, worker.Event{Event: "accepted", Port: selector, Client: "192.0.2.1:5", Backend: "172.17.0.2:80"})
	shows(t, out, "accepted   198.18.0.1:443/tcp in "+name+"  192.0.2.1:5 → 172.17.0.2:80")
	rig.Check(t, stop())
}

// TestTraceJSON: with --json an event is shown as it was told.
func TestTraceJSON(t *testing.T) {
	p := newPuppet(t)
	out, _, stop := start(t, "--json", selector)
	conn := p.asked(t)
	tell(t, conn, worker.Event{Event: "tracing"})
	e := events[2].event
	e.Time = time.Now().UTC()
	tell(t, conn, e)
	want, err := json.Marshal(e)
	rig.Must(t, err)
	shows(t, out, string(want))
	if got := out.String(); got != string(want)+"\n" {
		t.Errorf("got %s, want %s", got, want)
	}
	rig.Check(t, stop())
}

// TestTraceOfAnOlderWorker: what a worker refuses is said once.
func TestTraceOfAnOlderWorker(t *testing.T) {
	p := newPuppet(t)
	out, said, stop := start(t, selector)
	conn := p.asked(t)
	_, err := conn.Write([]byte("1\nnot a request: \"trace\"\n"))
	rig.Must(t, err)
	shows(t, said, fmt.Sprintf(`worker @portsplice/1/0/puppet-%d: not a request: "trace"`, os.Getpid()))
	rig.Check(t, stop())
	if out.String() != "" {
		t.Errorf("shown: %q", out)
	}
}

// TestTraceOfNoPort: a text that means no port is refused before any worker is asked.
func TestTraceOfNoPort(t *testing.T) {
	for _, text := range []string{"http", "0", "65536", "443/icmp", "443/", "fd00::1:443", "127.0.0.1", "[::]", ":443"} {
		_, _, stop := start(t, text)
		if err := stop(); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("port %q: ", text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
