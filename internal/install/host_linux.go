package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Files that are ours, beside what we change.
const (
	backupSuffix = ".before-portsplice"
	newSuffix    = ".portsplice-new" // which a crash may leave
)

// Install plans what makes dockerd start h.Program. The plan has no steps if it does so already.
func (h *Host) Install() (p Plan, err error) {
	version, err := major(h.Version)
	if err != nil {
		return p, err
	}
	if h.Rootless && version < exposesItself {
		h.Program = filepath.Join(filepath.Dir(h.Program), ByRootlessKit)
	}
	if err := h.checkProgram(); err != nil {
		return p, err
	}
	if err := h.checkFlags(); err != nil {
		return p, err
	}
	file, was, err := h.readConfig()
	switch {
	case err != nil:
		return p, err
	case was.off:
		return p, fmt.Errorf("%s: %q is false, so dockerd starts no proxy: take the line out first", h.Config, proxyOption)
	case was.path != "" && !Ours(was.path):
		return p, fmt.Errorf("%s: %q is %s already: take the line out first", h.Config, pathOption, was.path)
	}
	if was.path == "" && version >= looksInLibexec && !h.Rootless {
		p.Steps, err = h.makeLink()
	} else if was.path != h.Program {
		p.Steps, err = h.setPath(file, was)
	}
	if err != nil {
		return p, err
	}
	p.Next = "Ports that are published stay as they are until dockerd restarts:\n    " + h.restart() +
		"\n(which stops containers, too, unless daemon.json has \"live-restore\": true)"
	if len(p.Steps) == 0 {
		p.Next = "dockerd is set to start " + h.Program + " already: nothing to do"
	}
	return p, nil
}

// Uninstall plans what makes dockerd start the proxy that it would start without us: from whatever is left of an
// Install, one that was cut short and one by the other way as well. It needs no version of dockerd. With
// h.Program it takes back only what starts a program of that directory.
func (h *Host) Uninstall() (p Plan, err error) {
	for _, d := range h.Daemons {
		if path, _ := d.Flag(pathOption); h.installed(path) {
			return p, fmt.Errorf("dockerd (process %d) is started with --%s=%s: take the option out where it is written",
				d.PID, pathOption, path)
		}
		other, there := *h, false
		if other.Config, there = d.configFile(); !there || h.named || other.Config == h.Config {
			continue
		}
		if _, s, err := other.readConfig(); err == nil && h.installed(s.path) {
			return p, fmt.Errorf("dockerd (process %d) is started with --%s=%s, which has it start %s: name that file with --config",
				d.PID, fileOption, other.Config, s.path)
		}
	}
	link, err := h.link()
	if err == nil && h.installed(link) {
		p.Steps = append(p.Steps, h.remove(linkPath))
	} else if err != nil && !errors.Is(err, errNotOurs) {
		return p, err
	}
	if _, err := os.Lstat(h.in(linkPath + newSuffix)); err == nil && !h.Rootless {
		p.Steps = append(p.Steps, h.remove(linkPath+newSuffix))
	}
	restored, err := h.restoreConfig()
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps, restored...)
	switch {
	case len(p.Steps) == 0:
		p.Next = "dockerd is not set to start portsplice: nothing to do"
	case h.installed(link):
		p.Next = "A dockerd that runs can publish no more ports until it restarts:\n    " + h.restart()
	default:
		p.Next = "dockerd goes on with portsplice until it restarts:\n    " + h.restart()
	}
	return p, nil
}

// installed says whether a program is ours, and, if it is said which, of the same directory.
func (h *Host) installed(program string) bool {
	return Ours(program) && (h.Program == "" || filepath.Dir(h.Program) == filepath.Dir(program))
}

// in gives a path in the tree that is changed.
func (h *Host) in(path string) string { return filepath.Join("/", h.Root, path) }

func (h *Host) restart() string {
	if h.Rootless {
		return "systemctl --user restart docker"
	}
	return "sudo systemctl restart docker"
}

// checkProgram looks at what dockerd is to start.
func (h *Host) checkProgram() error {
	info, err := os.Stat(h.in(h.Program))
	switch {
	case err != nil:
		return fmt.Errorf("what dockerd is to start: %w", err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("what dockerd is to start: %s is not a program", h.Program)
	}
	needs := map[string]string{Shim: Program, ByRootlessKit: viaPath}
	if other := needs[filepath.Base(h.Program)]; other != "" {
		if _, err := os.Stat(h.in(filepath.Join(filepath.Dir(h.Program), other))); err != nil {
			return fmt.Errorf("%s needs %s beside it: %w", h.Program, other, err)
		}
	}
	return nil
}

// checkFlags refuses what is said to a dockerd that runs, and is not in its file.
func (h *Host) checkFlags() error {
	for _, d := range h.Daemons {
		who := fmt.Sprintf("dockerd (process %d)", d.PID)
		if value, there := d.Flag(proxyOption); there && value == "false" {
			return fmt.Errorf("%s is started with --%s=false: take the option out first", who, proxyOption)
		}
		if value, there := d.Flag(pathOption); there {
			return fmt.Errorf("%s is started with --%s=%s: take the option out first, where it is written", who, pathOption, value)
		}
		if value, there := d.configFile(); there && value != h.Config {
			return fmt.Errorf("%s is started with --%s=%s, and not with %s: name it with --config %[3]s", who, fileOption, value,
				h.Config)
		}
		if strings.HasPrefix(d.Exe, "/snap/") {
			return fmt.Errorf("%s is a snap, which can start no program from outside of it", who)
		}
	}
	return nil
}

var errNotOurs = errors.New("is there already, and is not ours")

// link gives where the link leads; empty if there is none.
func (h *Host) link() (target string, err error) {
	if h.Rootless {
		return "", nil // it is root's
	}
	target, err = os.Readlink(h.in(linkPath))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == nil && Ours(target):
		return target, nil
	case err == nil, errors.Is(err, syscall.EINVAL): // a file
		return "", fmt.Errorf("%s: %w", linkPath, errNotOurs)
	}
	return "", err
}

func (h *Host) remove(link string) Step {
	return Step{"remove the link " + link, func() error {
		err := os.Remove(h.in(link))
		_ = os.Remove(filepath.Dir(h.in(link))) // unless something else is there
		return err
	}}
}

// makeLink makes the link, or has it lead elsewhere.
func (h *Host) makeLink() ([]Step, error) {
	before, err := h.link()
	if err != nil || before == h.Program {
		return nil, err
	}
	say := fmt.Sprintf("link %s to %s", linkPath, h.Program)
	if before != "" {
		say += ", which led to " + before
	}
	return []Step{{say, func() error {
		path := h.in(linkPath)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(h.Program, path+newSuffix); err != nil {
			return err
		}
		return os.Rename(path+newSuffix, path)
	}}}, nil
}

// configPath is where the file is: a link to it stays one.
func (h *Host) configPath() (string, error) {
	path := h.in(h.Config)
	target, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err == nil {
			return "", fmt.Errorf("%s is a link that leads nowhere", h.Config)
		}
		return path, nil
	case err == nil && target != path && h.Root != "":
		return "", fmt.Errorf("%s is reached by a link, which may lead out of %s", h.Config, h.Root)
	}
	return target, err
}

// readConfig reads daemon.json. What is not there says nothing, and is nil.
func (h *Host) readConfig() (file []byte, s settings, err error) {
	path, err := h.configPath()
	if err != nil {
		return nil, s, err
	}
	file, err = os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s, nil
	case err != nil:
		return nil, s, err
	}
	if s, err = read(file); err != nil {
		return file, s, fmt.Errorf("%s: %w", h.Config, err)
	}
	return file, s, nil
}

// setPath writes the option to daemon.json, and first what it was to a file beside it, if it was there, and without a path of ours.
func (h *Host) setPath(file []byte, was settings) (steps []Step, err error) {
	path, err := h.configPath()
	if err != nil {
		return nil, err
	}
	after, err := withPath(file, h.Program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Config, err)
	}
	if file != nil && was.path == "" {
		steps = append(steps, Step{"copy " + h.Config + " to " + h.Config + backupSuffix, func() error {
			return replace(path+backupSuffix, path, file)
		}})
	}
	say := fmt.Sprintf("set %q to %q in %s", pathOption, h.Program, h.Config)
	return append(steps, Step{say, func() error { return replace(path, path, after) }}), nil
}

// restoreConfig takes the option out. A file that nobody has changed meanwhile is what it was, to the byte.
func (h *Host) restoreConfig() (steps []Step, err error) {
	path, err := h.configPath()
	if err != nil {
		return nil, err
	}
	file, is, err := h.readConfig()
	if err != nil {
		if !bytes.Contains(file, []byte(Program)) {
			return nil, nil // whatever it is, it is not ours
		}
		return nil, fmt.Errorf("%w; it may name portsplice, which is to be taken out by hand", err)
	}
	backup, err := os.ReadFile(path + backupSuffix)
	saved := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if is.path != "" && !h.installed(is.path) {
		return nil, nil
	}
	if is.path != "" {
		before, err := withoutPath(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Config, err)
		}
		if saved {
			was, _ := read(backup) // else it is not what the file was
			if installed, err := withPath(backup, is.path); err == nil && bytes.Equal(installed, file) && was.path == "" {
				before = backup
			} else if before == nil {
				before = []byte("{}\n")
			}
		}
		if before == nil {
			steps = append(steps, Step{"remove " + h.Config + ", which says nothing else", func() error { return os.Remove(path) }})
		} else {
			steps = append(steps, Step{fmt.Sprintf("take %q out of %s", pathOption, h.Config), func() error {
				return replace(path, path, before)
			}})
		}
	}
	for _, left := range []string{backupSuffix, newSuffix, backupSuffix + newSuffix} {
		if _, err := os.Lstat(path + left); err == nil {
			steps = append(steps, Step{"remove " + h.Config + left, func() error { return os.Remove(path + left) }})
		}
	}
	return steps, nil
}

// replace writes a file whole or not at all, with the mode and the owner of another, or those of a new one if that is not there.
func replace(path, like string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fresh := path + newSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = dress(f, like)
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return syncDirectory(filepath.Dir(path))
}

// dress gives the file the mode and the owner of another.
func dress(f *os.File, like string) error {
	info, err := os.Stat(like)
	if errors.Is(err, fs.ErrNotExist) {
		return f.Chmod(0o644)
	}
	if err != nil {
		return err
	}
	if owner, is := info.Sys().(*syscall.Stat_t); is {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return errors.Join(err, f.Chmod(info.Mode().Perm()))
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
