package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/netlab"
)

// command is a program from a distribution's packages. In its arguments and its configuration stand {ip} and {port} for
// where it listens, {backend} for where a proxy connects to, {protocol}, {options}, {config}, which is the path of the
// configuration file, and {dir}, which is for all others.
type command struct {
	programs  []string // names, or patterns of paths of what is not for users to start
	arguments string
	config    string
}

// endpoint is where a command listens and, if it is a proxy, connects to.
type endpoint struct {
	protocol string
	address  netip.AddrPort
	backend  netip.AddrPort
	options  string // of its listener
}

// newCommand writes the configuration, and describes the process. It is the first of a PID namespace, so that what it
// forks ends with it.
func (l *lab) newCommand(ctx context.Context, c command, e endpoint) (*process, error) {
	config := filepath.Join(l.dir, filepath.Base(c.programs[0])+"."+e.protocol+".conf")
	words := strings.NewReplacer("{ip}", e.address.Addr().String(), "{port}", strconv.Itoa(int(e.address.Port())),
		"{backend}", e.backend.String(), "{protocol}", e.protocol, "{options}", e.options, "{config}", config, "{dir}", l.dir)
	p := newProcess(ctx, find(c.programs...), strings.Fields(words.Replace(c.arguments)))
	p.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC
	return p, os.WriteFile(config, []byte(words.Replace(c.config)), 0o600)
}

// startCommand starts a command and waits until its port is open.
func (l *lab) startCommand(ctx context.Context, n *netlab.Namespace, p *process, e endpoint) error {
	if err := n.Do(p.Start); err != nil {
		return err
	}
	l.processes = append(l.processes, p)
	if err := p.awaitPort(ctx, e.protocol, e.address.Port()); err != nil {
		p.end()
		return fmt.Errorf("%s: %w\n%s", p, err, p.stderr.bytes)
	}
	return nil
}

// awaitPort waits until somebody has the port in the process's namespace.
func (p *process) awaitPort(ctx context.Context, protocol string, port uint16) error {
	table := fmt.Sprintf("/proc/%d/net/%s", p.Process.Pid, protocol)
	open := fmt.Sprintf(":%04X 00000000:0000 ", port)
	return poll(ctx, func() (bool, error) {
		b, err := os.ReadFile(table) // it is gone when the process has ended
		return strings.Contains(string(b), open), err
	})
}

// poll asks until the answer is yes, within the patience for something that starts.
func poll(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("not ready after %v", startPatience)
}
