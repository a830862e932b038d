package main

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestCutShort_libuv1991: whatever ends the program in mid-transfer, the reader sees a reset and does not take what it has
// for the whole. A connection at rest may end in order.
func TestCutShort_libuv1991(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) { testCutShort(t, engine) })
	}
}

func testCutShort(t *testing.T, engine string) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(s.String()+" download", func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			backend := rig.Serve(t, rig.Listen(t, ours()), rig.Pour)
			p := run{args: arguments("tcp", frontend, backend, "-engine", engine)}.serve(t)
			conn := dial(t, "tcp", frontend)
			_, err := io.CopyN(io.Discard, conn, 1<<20)
			must(t, err)
			must(t, p.Process.Signal(s))
			_ = p.Wait() // its status is TestStops'
			if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client's stream ended with %v, want a reset", err)
			}
		})
		t.Run(s.String()+" upload", func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			ended := make(chan error, 1)
			backend := rig.Serve(t, rig.Listen(t, ours()), func(conn *net.TCPConn) {
				_, err := io.Copy(io.Discard, conn)
				ended <- err
			})
			p := run{args: arguments("tcp", frontend, backend, "-engine", engine)}.serve(t)
			conn := dial(t, "tcp", frontend).(*net.TCPConn)
			writing := make(chan struct{})
			go func() {
				defer close(writing)
				rig.Pour(conn)
			}()
			until(t, "much has been sent", func() bool { return p.count(t, "copied")+p.count(t, "spliced") > 1<<20 })
			must(t, p.Process.Signal(s))
			_ = p.Wait()
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the backend's stream ended with %v, want a reset", err)
			}
			<-writing
		})
	}
}
