package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/netlab"
)

// process is a program in a namespace.
type process struct {
	*exec.Cmd
	stderr tail
}

// startPatience is dockerd's.
const startPatience = 16 * time.Second

// start starts a program that reports on a status pipe, with descriptors from 4 on if there are any, and waits for
// the report. It gives the time from before the exec to the report.
func (l *lab) start(ctx context.Context, n *netlab.Namespace, path string, args []string, files ...*os.File) (
	*process, time.Duration, error) {
	status, report, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = status.Close() }()
	p := newProcess(ctx, path, args)
	p.ExtraFiles = append([]*os.File{report}, files...)
	p.Env = append(os.Environ(), l.environment...)
	var begun time.Time
	err = n.Do(func() error {
		begun = time.Now()
		return p.Start()
	})
	_ = report.Close() // the process has its own
	if err != nil {
		return nil, 0, err
	}
	l.processes = append(l.processes, p)
	if err := status.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
		return nil, 0, err
	}
	answer := make([]byte, len("0\n"))
	_, err = io.ReadFull(status, answer)
	took := time.Since(begun)
	if err != nil || string(answer) != "0\n" {
		return nil, 0, p.refused(ctx, status, answer, err)
	}
	return p, took, nil
}

// refused says why a program that should serve does not.
func (p *process) refused(ctx context.Context, status io.Reader, answer []byte, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		reason, _ := io.ReadAll(status) // a part of it is better than none
		err = fmt.Errorf("status %q: %s", answer, reason)
	}
	p.end()
	return fmt.Errorf("%s: %w\n%s", p, err, p.stderr.bytes)
}

// output runs a program to its end and gives its standard output.
func output(ctx context.Context, n *netlab.Namespace, p *process) ([]byte, error) {
	stdout, err := p.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.Do(p.Start); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(stdout)
	err = errors.Join(err, p.Wait())
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", p, err, p.stderr.bytes)
	}
	return out, nil
}

// newProcess describes a process that ends with the context and with the benchmark, even when that is killed.
func newProcess(ctx context.Context, path string, args []string) *process {
	p := &process{Cmd: exec.CommandContext(ctx, path, args...)}
	p.Stderr = &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

// end ends the process if it has not ended.
func (p *process) end() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// tail keeps the end of what is written to it.
type tail struct{ bytes []byte }

func (t *tail) Write(b []byte) (int, error) {
	const bound = 2 << 10
	t.bytes = append(t.bytes, b...)
	if n := len(t.bytes); n > bound {
		t.bytes = append(t.bytes[:0], t.bytes[n-bound:]...)
	}
	return len(b), nil
}
