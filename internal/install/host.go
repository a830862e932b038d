package install

import "strings"

// The programs that dockerd may start.
const (
	Shim    = "portsplice-shim"
	Program = "portsplice" // which the shim needs beside itself

	// ByRootlessKit is for a rootless dockerd before 28.0: it starts RootlessKit's own proxy, and has that start viaPath.
	ByRootlessKit = "portsplice-rootless"
	viaPath       = "rootless/docker-proxy" // beside it, a link to the shim
)

// linkPath is where dockerd looks first.
const linkPath = "/usr/local/libexec/docker/docker-proxy"

// Host is a machine, or the tree of one, whose dockerd is to start portsplice.
type Host struct {
	Root     string // the tree; empty for the machine's own
	Config   string // the path of daemon.json, in the tree
	Program  string // the path of what dockerd is to start, in the tree
	Version  string // of dockerd
	Rootless bool   // dockerd is one user's, in a user namespace
	Daemons  []Daemon

	named bool // Config was said, where Find would have found another
}

// Plan is what is to be done, in order. Nothing has been when it is made.
type Plan struct {
	Steps []Step
	Next  string // what is left to the reader, or that there is nothing to do
}

// Step is one change of the file system.
type Step struct {
	Say string // what it does, as "link A to B"
	do  func() error
}

// Do takes the steps, and tells of each before it.
func (p Plan) Do(tell func(string)) error {
	for _, s := range p.Steps {
		tell(s.Say)
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

// Daemon is a dockerd that runs.
type Daemon struct {
	PID  int
	Exe  string   // its program
	Args []string // which it was started with, without its name

	Rootless bool // it is one user's, in a user namespace
}

// Flag gives the value of an option on the command line, the last of several, and whether it is there. One of truth
// values is "true" if nothing else is said.
func (d Daemon) Flag(name string) (value string, there bool) {
	for i, arg := range d.Args {
		option, value1, assigned := strings.Cut(arg, "=")
		if option != "--"+name {
			continue
		}
		there = true
		switch {
		case assigned:
			value = value1
		case name == proxyOption:
			value = "true"
		case i+1 < len(d.Args):
			value = d.Args[i+1]
		}
	}
	return value, there
}
