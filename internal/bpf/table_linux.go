package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Table is the ports of a network namespace that its processes reach without the proxy. It has a dozen descriptors.
type Table struct {
	cookie    uint64
	maps      *maps
	links     []*link.RawLink
	addresses *addresses
	pending   *pending // nil if the kernel does not end connects

	mu         sync.Mutex // over changes of maps.ports
	generation uint64
}

// Attach begins to watch the connects of this thread's network namespace, in all cgroups below the root that this
// process sees. It needs Linux 5.8, a mounted cgroup hierarchy of version 2, CAP_BPF and CAP_NET_ADMIN; with CAP_PERFMON,
// too, sockets of MPTCP and of TCP_FASTOPEN_CONNECT are known. The error says what is missing. The process's
// RLIMIT_MEMLOCK is lifted, where that may be.
func Attach() (t *Table, err error) {
	t = new(Table)
	defer func() {
		if err != nil {
			t, err = nil, errors.Join(explain(err), t.Close())
		}
	}()
	path, err := rootCgroup()
	if err != nil {
		return t, err
	}
	cgroup, err := os.Open(path)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, cgroup.Close()) }()
	liftMemlock()
	if t.maps, err = newMaps(); err != nil {
		return t, err
	}
	has := look()
	programs, err := load(t.maps, has)
	t.pending, _ = newPending(t.maps, has) // nil where it cannot be
	debug.FreeOSMemory()                   // 5 MB of the library's, for an index of all types
	if err == nil {
		t.cookie, err = namespaceCookie(cgroup)
	}
	if err == nil {
		t.addresses, err = watchAddresses(t.maps.addresses, t.cookie)
	}
	for i, p := range programs {
		if err == nil {
			err = t.attach(cgroup, hooks[i], p)
		}
		err = errors.Join(err, p.Close()) // the link has it
	}
	return t, err
}

func (t *Table) attach(cgroup *os.File, h hook, p *ebpf.Program) error {
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p, Attach: h.attach})
	if errors.Is(err, unix.EPERM) { // who may load them may attach them (hierarchy_allows_attach in kernel/bpf/cgroup.c)
		return fmt.Errorf("attach %s to %s: another tool's program is there by itself, without BPF_F_ALLOW_MULTI", h.name, cgroup.Name())
	}
	if err != nil {
		return fmt.Errorf("attach %s to %s: %w", h.name, cgroup.Name(), err)
	}
	t.links = append(t.links, l)
	return nil
}

// load loads the programs that the kernel and this thread's capabilities allow.
func load(m *maps, has kernel) (programs []*ebpf.Program, err error) {
	for _, k := range []kernel{
		has,
		{deferred: has.deferred}, // Linux before 5.19
		{},                       // no CAP_PERFMON, or Linux before 5.10
	} {
		if programs, err = loadFor(m, k); err == nil {
			break
		}
	}
	return programs, err
}

func loadFor(m *maps, k kernel) (programs []*ebpf.Program, err error) {
	for _, h := range hooks {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "bypass_" + h.name[:3] + h.name[len(h.name)-1:], Type: ebpf.CGroupSockAddr, AttachType: h.attach,
			Instructions: h.program(m, k), License: license,
		})
		if err != nil {
			for _, p := range programs {
				err = errors.Join(err, p.Close())
			}
			return nil, fmt.Errorf("load %s: %w", h.name, err)
		}
		programs = append(programs, p)
	}
	return programs, nil
}

// Close ends it: connects come to the proxy again.
func (t *Table) Close() (err error) {
	for _, l := range t.links {
		err = errors.Join(err, l.Close())
	}
	if t.addresses != nil {
		err = errors.Join(err, t.addresses.close())
	}
	if t.pending != nil {
		err = errors.Join(err, t.pending.close())
	}
	if t.maps != nil {
		err = errors.Join(err, t.maps.close())
	}
	return err
}

// Entry is a port in the table.
type Entry struct {
	table      *Table
	key        portKey
	generation uint64
	last       uint64 // how many connections were counted when it was removed
	removed    bool
}

// Add has TCP connects to frontend become connects to backend. An error says why this port cannot be bypassed.
func (t *Table) Add(frontend, backend netip.AddrPort) (*Entry, error) {
	front, back := frontend.Addr(), backend.Addr()
	translated := !front.Is4() && back.Is4()
	switch {
	case front.Zone() != "" || back.Zone() != "":
		return nil, fmt.Errorf("%v to %v: link-local addresses are not bypassed", frontend, backend)
	case front.Is4() && !back.Is4():
		return nil, fmt.Errorf("%v to %v: an IPv4 socket reaches no IPv6 backend", frontend, backend)
	}
	v := portValue{Address: back.As16(), Port: wire(backend.Port())}
	if translated {
		v.Translated = 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.generation++
	v.Generation = t.generation
	e := &Entry{table: t, key: keyOf(t.cookie, frontend), generation: t.generation}
	err := t.maps.ports.Put(&e.key, &v)
	if errors.Is(err, unix.E2BIG) {
		return nil, fmt.Errorf("%v: there is room for %d ports only", frontend, maxPorts)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", frontend, err)
	}
	return e, nil
}

// Bypassed is how many connections have been begun without the proxy.
func (e *Entry) Bypassed() uint64 {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	return e.bypassed()
}

func (e *Entry) bypassed() uint64 {
	var v portValue
	if !e.removed && e.table.maps.ports.Lookup(&e.key, &v) == nil && v.Generation == e.generation {
		e.last = v.Bypassed
	}
	return e.last
}

// Remove takes the port out, if it is in the table still. No connect that begins afterwards is bypassed to its backend, and
// none that waits for an answer goes on to, where the kernel ends such, and the thread is of the table's namespace. (One whose
// connect(2) runs while this does may be missed.)
func (e *Entry) Remove() error {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	var v portValue
	err := e.table.maps.ports.Lookup(&e.key, &v)
	if err == nil && v.Generation == e.generation {
		e.bypassed()
		err = e.table.maps.ports.Delete(&e.key)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil // it was removed before
	}
	if e.table.pending != nil && !e.removed && e.last > 0 {
		err = errors.Join(err, e.table.pending.end(e.generation))
	}
	e.removed = true
	return err
}
