package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	here, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	for _, entry := range processes {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		in := filepath.Join("/proc", entry.Name())
		line, err := os.ReadFile(filepath.Join(in, "cmdline"))
		if err != nil { // it has ended
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if filepath.Base(args[0]) != "dockerd" {
			continue
		}
		var owner unix.Stat_t
		namespace, err := os.Readlink(filepath.Join(in, "ns/pid"))
		if err != nil || namespace != here || unix.Stat(in, &owner) != nil || int(owner.Uid) != os.Geteuid() {
			continue
		}
		exe, err := os.Readlink(filepath.Join(in, "exe"))
		if err != nil {
			continue
		}
		found = append(found, Daemon{pid, strings.TrimSuffix(exe, " (deleted)"), args[1:]})
	}
	return found, nil
}
