package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// State is how bad a finding is.
type State string

// States. A note is worth knowing and no fault.
const (
	OK    State = "ok"
	Note  State = "note"
	Wrong State = "wrong"
)

// Finding is one thing that was looked at.
type Finding struct {
	About string `json:"about"` // a name that stays the same: dockerd, ports, splice, ...
	State State  `json:"state"`
	Says  string `json:"says"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// Facts is what was seen. A nil map or slice says that nothing was.
type Facts struct {
	Daemons  []Daemon
	Ports    []Port
	Workers  []Worker
	Versions []string // of the programs of workers, each once
	Version  string   // of this program
	Features []Feature
	Limits   Limits
	Unseen   []error // what could not be looked at
}

// Daemon is a dockerd.
type Daemon struct {
	PID         int
	Version     string // empty if it does not answer
	Off         bool   // it starts no proxy
	Proxy       string // what it starts
	From        string // how that is known: docker info, its command line, a file
	Missing     error  // why the proxy cannot be started
	Ours        bool
	Rootless    bool   // it is one user's
	Stale       string // the file that has changed since it was started; empty if none has
	Descriptors Descriptors
}

// Port is a process that serves a published port.
type Port struct {
	PID      int
	Name     string // as 0.0.0.0:80/tcp
	By       string // docker-proxy, worker, alone, or the name of another program
	Why      string // a port of ours has no worker
	Replaced bool   // its program was replaced since it was started
}

// What serves a port.
const (
	ByDockerProxy = "docker-proxy"
	ByWorker      = "worker"
	Alone         = "alone"
	Unserved      = "shim without a worker"
)

// Worker is a process that serves ports for shims.
type Worker struct {
	PID         int
	User        int
	Descriptors Descriptors
}

// Descriptors is how many a process has open, of how many.
type Descriptors struct{ Open, Limit uint64 }

// Feature is something of the kernel that a part of portsplice uses.
type Feature struct {
	Name    string
	Missing error  // nil if it is there
	For     string // what does without it
	Do      string
}

// Limits are settings of the kernel; zero if they could not be read.
type Limits struct {
	Ports       uint64 // net.ipv4.ip_local_port_range: how many
	SoMaxConn   uint64 // net.core.somaxconn
	PipePages   uint64 // fs.pipe-user-pages-soft
	PipesSet    bool   // it was read: 0 means no limit
	RootWorkers bool   // no worker is of a user whom pipes are counted for
}

// Judge says what the facts mean.
func Judge(f Facts) (all []Finding) {
	add := func(about string, state State, says, do string) { all = append(all, Finding{about, state, says, do}) }
	for _, d := range f.Daemons {
		all = append(all, d.judge())
	}
	if len(f.Daemons) == 0 {
		add("dockerd", Wrong, "no dockerd of this user runs",
			"start docker; or run this as the user that dockerd has, mostly root: sudo portsplicectl doctor")
	}
	all = append(all, judgePorts(f)...)
	for _, feature := range f.Features {
		if feature.Missing == nil {
			add(feature.Name, OK, "the kernel has it", "")
		} else {
			add(feature.Name, Note, fmt.Sprintf("%v: %s", feature.Missing, feature.For), feature.Do)
		}
	}
	all = append(all, judgeDescriptors(f)...)
	all = append(all, f.Limits.judge()...)
	for _, err := range f.Unseen {
		add("doctor", Note, "could not be looked at: "+err.Error(), "run it as root")
	}
	return all
}

func (d Daemon) judge() Finding {
	who := fmt.Sprintf("dockerd (process %d)", d.PID)
	if d.Version != "" {
		who = fmt.Sprintf("dockerd %s (process %d)", d.Version, d.PID)
	}
	find := func(state State, says, do string) Finding { return Finding{"dockerd", state, who + " " + says, do} }
	control, restart := "sudo portsplicectl", "sudo systemctl restart docker"
	if d.Rootless {
		control, restart = "portsplicectl", "systemctl --user restart docker"
	}
	starts := fmt.Sprintf("starts %s (%s)", d.Proxy, d.From)
	switch {
	case d.Off:
		return find(Wrong, "starts no userland proxy", "take \"userland-proxy\": false out, or see whether you need one: docs/migrating.md")
	case d.Stale != "":
		return find(Wrong, "was started before "+d.Stale+" changed, which says what it starts", restart)
	case d.Proxy == "":
		return find(Wrong, "finds no userland proxy", control+" install, then "+restart)
	case d.Missing != nil:
		return find(Wrong, fmt.Sprintf("%s, which it cannot: %v", starts, d.Missing), "install it again, or: "+control+" uninstall")
	case !d.Ours:
		return find(Wrong, starts, control+" install, then "+restart)
	}
	return find(OK, starts, "")
}

// judgePorts counts the ports by what serves them, and tells of those that another than a worker does.
func judgePorts(f Facts) (all []Finding) {
	by := map[string][]Port{}
	var old []Port
	for _, p := range f.Ports {
		by[p.By] = append(by[p.By], p)
		if p.Replaced && p.By != ByDockerProxy {
			old = append(old, p)
		}
	}
	ours := slices.ContainsFunc(f.Daemons, func(d Daemon) bool { return d.Ours })
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		ports := by[kind]
		count := fmt.Sprintf("%d of %d processes: ", len(ports), len(f.Ports))
		switch {
		case kind == ByWorker:
			all = append(all, Finding{"ports", OK, count + "a shim, and a worker", ""})
		case kind == Alone:
			reasons := byReason(ports)
			for _, why := range slices.Sorted(maps.Keys(reasons)) {
				says := fmt.Sprintf("%d of %d processes: portsplice without a worker%s: %s", len(reasons[why]), len(f.Ports), why,
					some(reasons[why]))
				all = append(all, Finding{"ports", why.state(), says, "once the reason has gone, restart the containers"})
			}
		case kind == Unserved:
			all = append(all, Finding{"ports", Wrong, count + "a shim that no worker knows: " + some(ports),
				"restart the containers; journalctl -t portsplice may say why"})
		case ours:
			all = append(all, Finding{"ports", Note, count + kind + ", from before dockerd was set to start portsplice: " + some(ports),
				"restart dockerd, or the containers"})
		default:
			all = append(all, Finding{"ports", Note, count + kind, ""})
		}
	}
	if len(f.Ports) == 0 {
		all = append(all, Finding{"ports", OK, "none is published, or none by a process that this user may see", ""})
	}
	if len(old) > 0 {
		all = append(all, Finding{"ports", Note, fmt.Sprintf("%d processes run a build that was replaced since: %s", len(old), some(old)),
			"restart the containers to have them served by the new one"})
	}
	for _, version := range f.Versions {
		if version != f.Version {
			all = append(all, Finding{"workers", Note, fmt.Sprintf("a worker is of version %s, and this is %s", version, f.Version),
				"it ends with its ports: restart their containers"})
		}
	}
	return all
}

// reason is why ports have no worker.
type reason string

func (r reason) String() string {
	if r == "" {
		return " (PORTSPLICE_WORKER=off, or dockerd starts it without the shim)"
	}
	return " (" + string(r) + ")"
}

// state is no fault where somebody has said so.
func (r reason) state() State {
	if r == "" {
		return Note
	}
	return Wrong
}

func byReason(ports []Port) map[reason][]Port {
	by := map[reason][]Port{}
	for _, p := range ports {
		by[reason(p.Why)] = append(by[reason(p.Why)], p)
	}
	return by
}

// some names a few ports.
func some(ports []Port) string {
	const few = 3
	var names []string
	for _, p := range ports[:min(few, len(ports))] {
		names = append(names, p.Name)
	}
	if len(ports) > few {
		names = append(names, fmt.Sprintf("and %d more", len(ports)-few))
	}
	return strings.Join(names, ", ")
}

// Numbers of descriptors. A TCP connection has two, an UDP flow one, and a connection that streams two more for its pipe.
const (
	fewDescriptors  = 4096  // 2,000 connections for all ports together: an ordinary server has more
	manyDescriptors = 65536 // 32,000: more than the source ports that connections to one container have
)

// judgeDescriptors looks at the workers, and at dockerd where there is none yet, which they get the limit from.
func judgeDescriptors(f Facts) (all []Finding) {
	judge := func(who string, d Descriptors) {
		says := fmt.Sprintf("%s has %d of %d descriptors open (RLIMIT_NOFILE); a TCP connection takes two", who, d.Open, d.Limit)
		const do = "raise it: LimitNOFILE=1048576 under [Service] in \"sudo systemctl edit docker\", then restart docker"
		switch {
		case d.Limit < fewDescriptors, d.Open > d.Limit/4*3:
			all = append(all, Finding{"descriptors", Wrong, says, do})
		case d.Limit < manyDescriptors:
			all = append(all, Finding{"descriptors", Note, says, do})
		default:
			all = append(all, Finding{"descriptors", OK, says, ""})
		}
	}
	for _, w := range f.Workers {
		judge(fmt.Sprintf("the worker (process %d)", w.PID), w.Descriptors)
	}
	if len(f.Workers) > 0 {
		return all
	}
	for _, d := range f.Daemons {
		if d.Descriptors.Limit > 0 {
			judge(fmt.Sprintf("dockerd (process %d), from which workers get their limit,", d.PID), d.Descriptors)
		}
	}
	return all
}

// The kernel's own values of these limits, below which they have been lowered.
const (
	usualPorts     = 28232 // 32768 to 60999
	fewPorts       = 8192
	usualSoMaxConn = 4096 // since 5.4; 128 before
	fewSoMaxConn   = 512
	usualPipePages = 16384 // the kernel's own: 64 of our pipes
	pagesOfPipe    = 256   // of 4 KiB: package splice makes its pipes take 1 MiB
)

func (l Limits) judge() (all []Finding) {
	judge := func(name string, value, few, usual uint64, means, do string) {
		f := Finding{name, OK, fmt.Sprintf("%s is %d", name, value), ""}
		switch {
		case value == 0:
			return
		case value < few:
			f = Finding{name, Wrong, f.Says + ": " + means, do}
		case value < usual:
			f = Finding{name, Note, f.Says + ": " + means, do}
		}
		all = append(all, f)
	}
	judge("net.ipv4.ip_local_port_range", l.Ports, fewPorts, usualPorts,
		"so many connections to one container port, or UDP flows of all ports, can there be", `sysctl -w net.ipv4.ip_local_port_range="32768 60999"`)
	judge("net.core.somaxconn", l.SoMaxConn, fewSoMaxConn, usualSoMaxConn,
		"so many clients can wait for a port in a burst, and others wait a second or more", "sysctl -w net.core.somaxconn=4096")
	if l.PipesSet {
		f := Finding{"fs.pipe-user-pages-soft", OK, fmt.Sprintf("fs.pipe-user-pages-soft is %d", l.PipePages), ""}
		if !l.RootWorkers && l.PipePages > 0 {
			if l.PipePages < usualPipePages {
				f.State, f.Do = Note, "sysctl -w fs.pipe-user-pages-soft=16384"
			}
			f.Says += fmt.Sprintf(": a user that is not root has %d pipes, each lent to a stream while its destination is behind, and others are copied", l.PipePages/pagesOfPipe)
		}
		all = append(all, f)
	}
	return all
}
