package install

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Choice is what a dockerd starts for a port.
type Choice struct {
	Off   bool     // nothing
	Path  string   // empty if it finds none
	From  string   // what says so: a file, or in words
	Files []string // which a change of would mean another choice at its next start
}

// Proxy follows dockerd's way to its proxy: its command line, its file, and the directories in which it looks. The function gives variables
// of its environment. dockerd does so when it starts; what has changed since is not what it starts.
func (d Daemon) Proxy(version string, variable func(string) string) (c Choice, err error) {
	config := "/etc/docker/daemon.json"
	if d.Rootless {
		config = filepath.Join(firstOf(variable("XDG_CONFIG_HOME"), filepath.Join(variable("HOME"), ".config")), "docker/daemon.json")
	}
	if named, there := d.configFile(); there {
		config = named
	}
	c.Files = []string{config}
	var s settings
	if file, failed := os.ReadFile(config); failed == nil {
		if s, err = read(file); err != nil {
			err = fmt.Errorf("%s: %w", config, err)
		}
	}
	flag, there := d.Flag(proxyOption)
	c.Off = s.off || there && flag == "false"
	if path, there := d.Flag(pathOption); there {
		c.Path, c.From = path, "its command line"
		return c, err
	}
	if c.Path, c.From = s.path, config; s.path != "" {
		return c, err
	}
	if v, failed := major(version); failed != nil || v >= looksInLibexec && (v >= exposesItself || !d.Rootless) {
		c.Files = append(c.Files, linkPath)
		for _, directory := range []string{filepath.Dir(linkPath), "/usr/libexec/docker", "/usr/local/lib/docker", "/usr/lib/docker",
			"/usr/local/libexec", "/usr/libexec"} {
			path := filepath.Join(directory, "docker-proxy")
			if _, failed := exec.LookPath(path); failed == nil {
				c.Path, c.From = path, "where it looks by itself"
				return c, err
			}
		}
	}
	for directory := range strings.SplitSeq(variable("PATH"), ":") {
		path := filepath.Join(directory, "docker-proxy")
		if _, failed := exec.LookPath(path); failed == nil && filepath.IsAbs(path) {
			c.Path, c.From = path, "its PATH"
			return c, err
		}
	}
	c.From = ""
	return c, err
}

// configFile is the file that its command line names, which is of its own directory, and whether it names one.
func (d Daemon) configFile() (path string, there bool) {
	path, there = d.Flag(fileOption)
	if !filepath.IsAbs(path) {
		directory, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", d.PID)) // else the path is what was said
		path = filepath.Join(directory, path)
	}
	return filepath.Clean(path), there
}

// Socket is that of its API.
func (d Daemon) Socket(variable func(string) string) string {
	for i, arg := range d.Args {
		for _, option := range []string{"-H", "--host"} {
			value, assigned := strings.CutPrefix(arg, option+"=")
			if arg == option && i+1 < len(d.Args) {
				value, assigned = d.Args[i+1], true
			}
			if path, unix := strings.CutPrefix(value, "unix://"); assigned && unix {
				return path
			}
		}
	}
	if d.Rootless {
		return filepath.Join(variable("XDG_RUNTIME_DIR"), "docker.sock")
	}
	return "/var/run/docker.sock"
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
