package bypass

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// counted is an entry whose removal answers an error.
type counted struct {
	connections uint64
	removal     error
}

func (c *counted) Bypassed() uint64 { return c.connections }
func (c *counted) Remove() error    { return c.removal }

// connect gives both ends of what Start makes.
func connect(t *testing.T) (worker, program *net.UnixConn) {
	t.Helper()
	worker, file, err := pair()
	rig.Must(t, err)
	conn, err := net.FileConn(file)
	rig.Must(t, errors.Join(err, file.Close()))
	rig.Must(t, worker.SetDeadline(time.Now().Add(rig.Timeout)))
	t.Cleanup(func() { _ = worker.Close() }) // the test may have closed it
	return worker, conn.(*net.UnixConn)
}

// TestServe: each request has the answer that doc.go tells of, and the end of the worker ends it.
func TestServe(t *testing.T) {
	worker, program := connect(t)
	ended := make(chan error)
	go func() {
		err := Serve(program, func(frontend, backend netip.AddrPort) (Entry, error) {
			switch frontend.Port() {
			case 1:
				return nil, fmt.Errorf("%w: no", errors.ErrUnsupported)
			case 2:
				return &counted{removal: errors.New("it stays")}, nil
			}
			return &counted{connections: uint64(backend.Port())}, nil
		})
		ended <- errors.Join(err, program.Close())
	}()
	for _, test := range []struct{ request, want string }{
		{"", "ok"}, // the program speaks first
		{"add 127.0.0.1:80 198.18.0.2:8080", "ok 1"},
		{"add [::1%lo]:80 [fe80::1%eth0]:7", "ok 2"},
		{"add 127.0.0.1:2 198.18.0.2:1", "ok 3"},
		{"count 1", "ok 8080"},
		{"count 2", "ok 7"},
		{"remove 1", "ok 8080"},
		{"remove 3", "no other it stays"},
		{"add 127.0.0.1:1 198.18.0.2:1", "no unsupported unsupported operation: no"},
		{"add 127.0.0.1 198.18.0.2:1", "no other not an ip:port"},
		{"count 1", `no other not a request: "count 1"`}, // it was removed
		{"count -1", `no other not a request: "count -1"`},
		{"count 1 2", `no other not a request: "count 1 2"`},
		{"retire 2", `no other not a request: "retire 2"`},
		{"count", `no other not a request: "count"`},
		{strings.Repeat("x", 2*longest), `no other not a request: "xxx`},
	} {
		if test.request != "" {
			_, err := worker.Write([]byte(test.request))
			rig.Must(t, err)
		}
		var b [2 * longest]byte
		n, err := worker.Read(b[:])
		rig.Must(t, err)
		if got := string(b[:n]); got != test.want && (!strings.HasPrefix(test.want, "no other") || !strings.HasPrefix(got, test.want)) {
			t.Errorf("%.60q is answered %q, want %q", test.request, got, test.want)
		}
	}
	rig.Must(t, worker.Close())
	rig.Must(t, <-ended)
}

// TestRefusal: what the worker asks of an error survives the way.
func TestRefusal(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("too old: %w", errors.ErrUnsupported),
		&fs.PathError{Op: "bpf", Path: "program", Err: os.ErrPermission},
		errors.New(""),
		errors.New(strings.Repeat("long ", longest)),
	} {
		rest, got := accepted(refuse(err))
		if rest != "" || !strings.HasPrefix(err.Error(), got.Error()) {
			t.Errorf("%.60q became %q, %.60q", err, rest, got)
		}
		for _, class := range classes {
			if errors.Is(got, class) != errors.Is(err, class) {
				t.Errorf("is %.60q %v? it is not known", err, class)
			}
		}
	}
	if rest, err := accepted("ok 7"); rest != "7" || err != nil {
		t.Errorf("ok 7 became %q, %v", rest, err)
	}
	if _, err := accepted("what"); err == nil || errors.As(err, new(refusal)) {
		t.Errorf("what is not an answer became %v", err)
	}
}
