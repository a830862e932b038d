package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
)

// Tool is what watches a proxy while it works. It may be nothing.
type Tool struct {
	Environment []string // of the proxy
	Command     []string // program that is given the number of the proxy's process, and ends with an interrupt
}

// attach begins to watch. The function that it returns ends the command and then the proxy, with an interrupt each, and
// waits: what they write is written.
func (t Tool) attach(ctx context.Context, proxy *process) (finish func() error, err error) {
	if len(t.Environment)+len(t.Command) == 0 {
		return func() error { return nil }, nil
	}
	interrupted := []*exec.Cmd{proxy.Cmd}
	if len(t.Command) > 0 {
		watcher := newProcess(ctx, t.Command[0], append(t.Command[1:], strconv.Itoa(proxy.Process.Pid)))
		if err := watcher.Start(); err != nil {
			return nil, err
		}
		interrupted = []*exec.Cmd{watcher.Cmd, proxy.Cmd}
	}
	return func() error {
		var errs []error
		for _, p := range interrupted {
			errs = append(errs, p.Process.Signal(os.Interrupt), ended(p.Wait()))
		}
		return errors.Join(errs...)
	}, nil
}

// ended is nil for a process that ended by itself or with the interrupt, whatever its status.
func ended(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
