//go:build e2e && linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// audience is local clients of a published port that ask who is there, over and over, each time by a new connection. Who may
// answer at a time is what the test says.
type audience struct {
	t        *testing.T
	port     int
	everyone []string               // who may answer while the speaker changes
	speaker  atomic.Pointer[string] // who answers; empty if nobody does, nil while that changes
	answers  atomic.Int64           // of the speaker

	leave   chan struct{}
	once    sync.Once // closes it
	clients sync.WaitGroup

	mu      sync.Mutex
	waiting context.Context // ends for those who are connected to somebody who does not answer any more
	cut     context.CancelFunc
	between map[string]int // how the clients fared while the speaker changed
}

// gather has four clients ask, at one host or the other, until they are dismissed or the test ends.
func gather(t *testing.T, port int, hosts []string, everyone ...string) *audience {
	a := &audience{t: t, port: port, everyone: everyone, leave: make(chan struct{}), between: map[string]int{}}
	a.waiting, a.cut = context.WithCancel(context.WithoutCancel(t.Context()))
	for i := range 4 {
		host := hosts[i%len(hosts)]
		a.clients.Go(func() {
			pause := time.NewTicker(5 * time.Millisecond) // a refusal takes no time: dockerd would have no CPU
			defer pause.Stop()
			for {
				select {
				case <-a.leave:
					return
				case <-pause.C:
					a.ask(host)
				}
			}
		})
	}
	t.Cleanup(func() {
		a.dismiss()
		t.Logf("port %d: %d answers; while it changed: %v", port, a.answers.Load(), a.between)
	})
	return a
}

// dismiss waits until no client is left.
func (a *audience) dismiss() {
	a.once.Do(func() { close(a.leave) })
	a.clients.Wait()
	a.cutOff()
}

// cutOff ends the wait of those who are connected, as their own timeout would: the container has lost its network, and
// nobody tells them.
func (a *audience) cutOff() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut()
	a.waiting, a.cut = context.WithCancel(context.WithoutCancel(a.t.Context()))
}

// ask connects once, and fails the test if that takes long or somebody answers who may not. Only while the speaker changes
// may there be no answer, and only if nobody speaks must there be none.
func (a *audience) ask(host string) {
	a.mu.Lock()
	waiting := a.waiting
	a.mu.Unlock()
	before := a.speaker.Load()
	name, err := hostnameAt(waiting, host, a.port)
	steady := before != nil && before == a.speaker.Load() // each speaker has an address of its own
	var late net.Error                                    // of the kernel or the clock, and at connect() or after it
	switch {
	case errors.As(err, &late) && late.Timeout():
		a.t.Errorf("port %d hangs: %v", a.port, err)
	case steady && *before == "":
		if !errors.Is(err, unix.ECONNREFUSED) {
			a.t.Errorf("port %d is nobody's: got an answer of %q and error %v, want a refusal", a.port, name, err)
		}
	case steady:
		if err != nil || name != *before {
			a.t.Errorf("port %d is that of %s: got an answer of %q and error %v", a.port, *before, name, err)
		}
		a.answers.Add(1)
	case err == nil && !slices.Contains(a.everyone, name):
		a.t.Errorf("port %d: %s has answered, which is none of %v", a.port, name, a.everyone)
	default:
		a.note(name, err)
	}
}

func (a *audience) note(name string, err error) {
	what := "answers of " + name
	if err != nil {
		what = "other errors"
		for _, known := range []error{
			unix.ECONNREFUSED, unix.ECONNRESET, unix.ECONNABORTED, unix.EPIPE, unix.EHOSTUNREACH, io.ErrUnexpectedEOF, context.Canceled,
		} {
			if errors.Is(err, known) {
				what = known.Error()
			}
		}
	}
	a.mu.Lock()
	a.between[what]++
	a.mu.Unlock()
}

// expect waits until a speaker, unless that is nobody, answers, and from then on has each client told its name.
func (a *audience) expect(speaker string) {
	a.t.Helper()
	if speaker != "" {
		eventually(a.t, fmt.Sprintf("%s answers on port %d", speaker, a.port), func() bool {
			name, err := hostnameAt(a.t.Context(), "127.0.0.1", a.port)
			return err == nil && name == speaker
		})
	}
	a.speaker.Store(&speaker)
}

// listen waits until the speaker has answered a number of clients.
func (a *audience) listen(answers int64) {
	a.t.Helper()
	before := a.answers.Load()
	eventually(a.t, fmt.Sprintf("%s answers clients on port %d", *a.speaker.Load(), a.port), func() bool {
		return a.answers.Load() >= before+answers
	})
}

// hostnameAt asks a container for its name, over a new connection. The context ends the wait for the answer, but not
// connect().
func hostnameAt(ctx context.Context, host string, port int) (string, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), patience)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // the answer has been read, or given up
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // fails if it is closed
	name, err := readHostname(conn)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return name, err
}

func readHostname(conn net.Conn) (string, error) {
	if _, err := io.WriteString(conn, "GET /hostname HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	name, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, name)
	}
	return string(name), err
}
