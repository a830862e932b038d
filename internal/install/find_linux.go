package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/portsplice/portsplice/internal/processes"
)

// patience bounds how long dockerd may take to tell its version.
const patience = 10 * time.Second

// Find completes a host by what is to be known of it: its daemon.json and, unless it is a tree, its dockerd. A user that is not root
// has a dockerd of its own, or none.
func (h *Host) Find() (err error) {
	if h.Root != "" { // what runs here is not what will run there
		if h.Config == "" {
			h.Config = "/etc/docker/daemon.json"
		}
		h.Root, err = filepath.Abs(h.Root)
		return err
	}
	h.named = h.Config != ""
	for _, path := range []*string{&h.Config, &h.Program} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if h.Daemons, err = Daemons(); err != nil {
		return err
	}
	if h.Rootless = os.Geteuid() != 0; h.Rootless && len(h.Daemons) == 0 {
		return fmt.Errorf("%w: take sudo; or, for a rootless dockerd, start it first", os.ErrPermission)
	}
	if h.Config != "" {
		return nil
	}
	directory := "/etc"
	if h.Rootless {
		if directory, err = os.UserConfigDir(); err != nil {
			return err
		}
	}
	h.Config = filepath.Join(directory, "docker/daemon.json")
	return nil
}

// FindProgram finds what dockerd is to start, unless it is said: what came with this program, in its directory, as a
// build leaves it, or in libexec. Where there was no C compiler there is no shim.
func (h *Host) FindProgram() error {
	if h.Program != "" {
		return nil
	}
	directories := []string{"/usr/libexec/docker", "/usr/local/libexec/docker"}
	if h.Root == "" {
		self, err := os.Executable()
		if err == nil {
			self, err = filepath.EvalSymlinks(self)
		}
		if err != nil {
			return err
		}
		directories = []string{filepath.Join(self, "../../libexec/docker"), filepath.Dir(self)}
	}
	for _, name := range []string{Shim, Program} {
		for _, directory := range directories {
			path := filepath.Join(directory, name)
			if info, err := os.Stat(h.in(path)); err == nil && info.Mode().IsRegular() {
				h.Program = path
				return nil
			}
		}
	}
	return fmt.Errorf("%s is in none of %s: say with --program where it is", Shim, strings.Join(directories, ", "))
}

// FindVersion asks dockerd for its version, the program and not the process: what is installed is started next.
func (h *Host) FindVersion(ctx context.Context) error {
	if h.Version != "" {
		return nil
	}
	if h.Root != "" {
		return errors.New("the Docker of another tree cannot be asked for its version: say it with --docker")
	}
	program := "dockerd"
	for _, d := range h.Daemons {
		program = d.Exe
	}
	if _, err := exec.LookPath(program); err != nil && len(h.Daemons) == 0 {
		program = "/usr/sbin/dockerd" // sudo's PATH may lack it
	}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	answer, err := exec.CommandContext(ctx, program, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("which Docker is here (--docker says it): %s --version: %w %s", program, err, answer)
	}
	h.Version = number(strings.TrimSpace(string(answer)))
	return nil
}

// Daemons finds the dockerds of this user in this PID namespace, so none of those that run in containers.
func Daemons() (found []Daemon, err error) {
	all, err := processes.All()
	for _, p := range all {
		if filepath.Base(p.Args[0]) == "dockerd" && p.User() == os.Geteuid() && p.Shares("pid") {
			exe, _ := p.Exe()
			_, rootless := p.Variable("ROOTLESSKIT_STATE_DIR") // as dockerd asks itself (moby's daemon/internal/rootless)
			found = append(found, Daemon{p.PID, exe, p.Args[1:], rootless})
		}
	}
	return found, err
}
