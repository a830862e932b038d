// Command portsplice-bypass brings the local bypass into the kernel (docs/local-bypass.md). The worker starts it when a
// port asks for that, with a socket at descriptor 3 by which it says what to do (internal/bypass). It ends with the worker,
// and then the kernel detaches what it has attached.
//
// It is a program of its own because of what it takes: a library that no port should pay for, and privileges that are no
// use to whoever moves bytes. It gives those up when it has attached its programs.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/portsplice/portsplice/internal/bpf"
	"github.com/portsplice/portsplice/internal/bypass"
	"github.com/portsplice/portsplice/internal/journal"
)

// version is set by the Makefile.
var version = "unknown"

// workerFD is where the worker puts the socket.
const workerFD = 3

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-version" {
		fmt.Println("portsplice-bypass version " + version + ", " + runtime.Version())
		return
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "portsplice-bypass:", err)
		os.Exit(1)
	}
}

func serve() error {
	file := os.NewFile(workerFD, "worker")
	c, err := net.FileConn(file) // a duplicate
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("descriptor %d: %w (the worker starts this program)", workerFD, err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("descriptor %d is not a unix socket (the worker starts this program)", workerFD)
	}
	if stream, err := journal.Stream(slog.LevelError); err == nil { // standard error is /dev/null
		_ = debug.SetCrashOutput(stream, debug.CrashOptions{})
		_ = stream.Close() // the runtime has its own
	}
	table, err := attach()
	if err != nil {
		return bypass.Refuse(conn, err)
	}
	return bypass.Serve(conn, func(frontend, backend netip.AddrPort) (bypass.Entry, error) {
		return table.Add(frontend, backend)
	})
}

// attach brings the programs into the kernel, and gives up what that has taken.
func attach() (*bpf.Table, error) {
	if len(os.Args) != 2 || os.Args[1] != version {
		return nil, fmt.Errorf("portsplice-bypass is of version %s, and its worker of another: %q", version, os.Args[1:])
	}
	table, err := bpf.Attach()
	if err != nil {
		return nil, err
	}
	return table, table.Unprivileged()
}
