package main

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestSandboxWithoutSplice starts the program where a sandbox forbids splice(2). The default is to serve the port by
// the fallback; who asked for the engine splice gets told why not.
func TestSandboxWithoutSplice(t *testing.T) {
	for _, engine := range []string{"auto", "fallback"} {
		t.Run(engine, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			r := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine)}
			var p *process
			rig.Forbid(t, unix.SYS_SPLICE, unix.EPERM, func() { p = r.serve(t) })
			exchange(t, dial(t, "tcp", frontend), "hello")
			if c := p.counters(t); c["engine"] != "fallback" {
				t.Errorf("the engine is %s, want fallback", c["engine"])
			}
		})
	}
	t.Run("splice", func(t *testing.T) {
		r := run{args: arguments("tcp", freePort(t, "tcp", ours()), freePort(t, "tcp", ours()), "-engine", "splice")}
		rig.Forbid(t, unix.SYS_SPLICE, unix.EPERM, func() {
			r.fails(t, "engine splice: unsupported operation: splice from a socket: operation not permitted")
		})
	})
}

// TestStartWithoutMemory: what the engine splice needs to start has merely run out. The default is the fallback then, too,
// and a line says why.
func TestStartWithoutMemory(t *testing.T) {
	frontend := freePort(t, "tcp", ours())
	r := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()))}
	var p *process
	rig.Forbid(t, unix.SYS_SPLICE, unix.ENOMEM, func() { p = r.serve(t) })
	exchange(t, dial(t, "tcp", frontend), "hello")
	if c := p.counters(t); c["engine"] != "fallback" {
		t.Errorf("the engine is %s, want fallback", c["engine"])
	}
	p.says(t, "splice from a socket: "+unix.ENOMEM.Error())
}
