package main

import (
	"bytes"
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

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// process is a program that ends with the context and with the benchmark, even when that is killed.
type process struct {
	*exec.Cmd
	ctx    context.Context
	stderr tail
}

func newProcess(ctx context.Context, path string, args ...string) *process {
	p := &process{Cmd: exec.CommandContext(ctx, path, args...), ctx: ctx}
	p.Stderr, p.Env = &p.stderr, os.Environ()
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

// Start starts it. The files that it is handed are its own from then on. With Setsid it is a scheduling group of its own
// (a session is one where there is autogrouping, sched(7)): a proxy and a container's server have one each on a Docker host,
// by their control groups, and what a group gets of the CPUs does not depend on its number of threads. The client shares
// ours, and so do proxies of which there are many: a group for each is what no host has.
func (p *process) Start() error {
	err := p.Cmd.Start()
	for _, file := range p.ExtraFiles {
		_ = file.Close()
	}
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

// report starts a program that reports on a status pipe, with ExtraFiles from 4 on, and waits for the report. It gives the
// time from before the exec to the report.
func (p *process) report(in where) (took time.Duration) {
	status, report, err := os.Pipe()
	failure.Check(err)
	defer func() { _ = status.Close() }()
	p.ExtraFiles = append([]*os.File{report}, p.ExtraFiles...)
	var begun time.Time
	failure.Check(in(func() error {
		begun = time.Now()
		return p.Start()
	}))
	failure.Check(status.SetReadDeadline(time.Now().Add(startPatience)))
	answer := make([]byte, len("0\n"))
	_, err = io.ReadFull(status, answer)
	took = time.Since(begun)
	if err == nil && string(answer) != "0\n" {
		reason, _ := io.ReadAll(status) // a part of it is better than none
		err = fmt.Errorf("status %q: %s", answer, reason)
	}
	p.check(err)
	return took
}

// check ends a process that did not do what it should, and says why.
func (p *process) check(err error) {
	if err == nil {
		return
	}
	p.end()
	failure.Check(p.ctx.Err())
	failure.Fail("%s: %w\n%s", p, err, p.stderr.bytes)
}

// output runs a program to its end and gives its standard output.
func (p *process) output(in where) []byte {
	var stdout bytes.Buffer
	p.Stdout = &stdout
	failure.Check(in(p.Start))
	p.check(p.Wait())
	return stdout.Bytes()
}

// awaitPort waits until somebody has the port in the process's namespace.
func (p *process) awaitPort(protocol string, port uint16) {
	open := fmt.Sprintf(":%04X 00000000:0000 ", port)
	p.check(poll(p.ctx, func() (bool, error) {
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

// tool is what watches a proxy while it works, if the work is traffic. It may be nothing.
type tool struct {
	environment []string // of the proxy
	command     []string // program that is given the number of the proxy's process, and ends with an interrupt
}

// attach has the tool watch a proxy. The function that it returns ends the command and then the proxy, with an interrupt
// each, and waits: what they write is written.
func (l *lab) attach(proxy *process) (finish func()) {
	var interrupted []*process
	if len(l.tool.command) > 0 {
		watcher := l.newProcess(l.tool.command[0], append(l.tool.command[1:], strconv.Itoa(proxy.Process.Pid))...)
		failure.Check(watcher.Start())
		interrupted = append(interrupted, watcher)
	}
	if len(l.tool.environment)+len(l.tool.command) > 0 {
		interrupted = append(interrupted, proxy)
	}
	return func() {
		for _, p := range interrupted {
			failure.Check(p.Process.Signal(os.Interrupt))
			err := p.Wait()
			if _, ended := errors.AsType[*exec.ExitError](err); !ended { // whatever its status
				failure.Check(err)
			}
		}
	}
}
