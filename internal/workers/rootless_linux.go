package workers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/processes"
)

// EnterRootless starts this program anew, by nsenter(1), inside the user namespace in which a rootless dockerd of this user
// has its ports served; there the user is root, and may ask the workers. With network it is in their network namespace,
// too. It returns for root, and if there is no such port. (setns(2) takes no process with threads to a user namespace, so
// a Go program cannot go there itself.)
func EnterRootless(network bool) error {
	pid := rootless()
	if pid == 0 {
		return nil
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("to ask the workers of a rootless dockerd: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"nsenter", "--preserve-credentials", "--user", "--target", strconv.Itoa(pid)}
	if network {
		args = append(args, "--net")
	}
	return os.NewSyscallError("execve", unix.Exec(nsenter, append(append(args, "--", self), os.Args[1:]...), os.Environ()))
}

// rootless finds a process of this user's in another user namespace, and in another network namespace, with workers; 0 if
// there is none, or this is root. A sandbox that shares the network namespace, as a browser has them, is none.
func rootless() (pid int) {
	if os.Geteuid() == 0 {
		return 0
	}
	all, err := processes.All()
	if err != nil {
		return 0
	}
	for _, p := range all {
		if p.User() != os.Geteuid() || p.Shares("user") || p.Shares("net") {
			continue
		}
		sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", p.PID))
		if err == nil && bytes.Contains(sockets, []byte(" @portsplice/")) {
			return p.PID
		}
	}
	return 0
}
