package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that ends with the context and with the benchmark, even when that is killed.
type process struct {
	*exec.Cmd
	stderr tail
}

func newProcess(ctx context.Context, path string, args ...string) *process {
	p := &process{Cmd: exec.CommandContext(ctx, path, args...)}
	p.Stderr = &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.Env = os.Environ()
	return p
}

// apart has the process start in a scheduling group of its own (a session is one where there is autogrouping, sched(7)):
// a proxy and a container's server have one each on a Docker host, by their control groups, and what a group gets of the
// CPUs does not depend on its number of threads. The client shares ours, and so do proxies of which there are many: a group
// for each is what no host has.
func (p *process) apart() *process {
	p.SysProcAttr.Setsid = true
	return p
}

// Start starts it.
func (p *process) Start() error {
	err := p.Cmd.Start()
	if err == nil && p.SysProcAttr.Setsid {
		weigh(p.Process.Pid)
	}
	return err
}

// weigh gives the group of a process the weight of ours, where there are groups.
func weigh(pid int) {
	ours, _ := os.ReadFile("/proc/self/autogroup") // as in "/autogroup-42 nice 0"
	if _, nice, ok := strings.Cut(string(ours), " nice "); ok {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(nice), 0)
	}
}

// where is how something is done in a namespace, such as starting a process.
type where func(func() error) error

// startPatience is dockerd's.
const startPatience = 16 * time.Second

// report starts a program that reports on a status pipe, with descriptors from 4 on if there are any, and waits for the
// report. It gives the time from before the exec to the report.
func (p *process) report(ctx context.Context, in where, files ...*os.File) (took time.Duration, err error) {
	status, report, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = status.Close() }()
	p.ExtraFiles = append([]*os.File{report}, files...)
	var begun time.Time
	err = in(func() error {
		begun = time.Now()
		return p.Start()
	})
	_ = report.Close() // the process has its own
	if err == nil {
		err = status.SetReadDeadline(time.Now().Add(startPatience))
	}
	if err != nil {
		return 0, err
	}
	answer := make([]byte, len("0\n"))
	_, err = io.ReadFull(status, answer)
	took = time.Since(begun)
	if err == nil && string(answer) != "0\n" {
		reason, _ := io.ReadAll(status) // a part of it is better than none
		err = fmt.Errorf("status %q: %s", answer, reason)
	}
	return took, p.orEnd(ctx, err)
}

// orEnd ends a process that did not do what it should, and says why.
func (p *process) orEnd(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	p.end()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s: %w\n%s", p, err, p.stderr.bytes)
}

// output runs a program to its end and gives its standard output.
func (p *process) output(ctx context.Context, in where) ([]byte, error) {
	stdout, err := p.StdoutPipe()
	if err == nil {
		err = in(p.Start)
	}
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(stdout)
	return out, p.orEnd(ctx, errors.Join(err, p.Wait()))
}

// awaitPort waits until somebody has the port in the process's namespace.
func (p *process) awaitPort(ctx context.Context, protocol string, port uint16) error {
	open := fmt.Sprintf(":%04X 00000000:0000 ", port)
	return p.orEnd(ctx, poll(ctx, func() (bool, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.Process.Pid, protocol)) // gone when the process has ended
		return strings.Contains(string(b), open), err
	}))
}

// poll asks until the answer is yes, within the patience for something that starts.
func poll(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("not ready after %v", startPatience))
	defer cancel()
	for tick := time.Tick(time.Millisecond); ; {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end ends the process if it has not ended.
func (p *process) end() {
	if p.Process != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}

// tail keeps the end of what is written to it.
type tail struct{ bytes []byte }

func (t *tail) Write(b []byte) (int, error) {
	const bound = 2 << 10
	t.bytes = append(t.bytes, b...)
	t.bytes = t.bytes[max(0, len(t.bytes)-bound):]
	return len(b), nil
}

// Tool is what watches a proxy while it works. It may be nothing.
type Tool struct {
	Environment []string // of the proxy
	Command     []string // program that is given the number of the proxy's process, and ends with an interrupt
}

// attach begins to watch. The function that it returns ends the command and then the proxy, with an interrupt each, and
// waits: what they write is written.
func (t Tool) attach(ctx context.Context, proxy *process) (finish func() error, err error) {
	var interrupted []*process
	if len(t.Command) > 0 {
		watcher := newProcess(ctx, t.Command[0], append(t.Command[1:], strconv.Itoa(proxy.Process.Pid))...)
		if err := watcher.Start(); err != nil {
			return nil, err
		}
		interrupted = append(interrupted, watcher)
	}
	if len(t.Environment)+len(t.Command) > 0 {
		interrupted = append(interrupted, proxy)
	}
	return func() error {
		var errs []error
		for _, p := range interrupted {
			err := p.Process.Signal(os.Interrupt)
			var exit *exec.ExitError
			if ended := p.Wait(); !errors.As(ended, &exit) { // whatever its status
				err = errors.Join(err, ended)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, nil
}
