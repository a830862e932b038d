package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
)

// onThread runs f on a thread that ends with it, and may give up what it has.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		err := errors.New("the function has not come to its end")
		defer func() { done <- err }()
		runtime.LockOSThread()
		err = f()
	}()
	return <-done
}

// with calls f on this thread with those capabilities only.
func with(f func() error, numbers ...uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, few [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for i := range few {
		few[i].Permitted = all[i].Permitted
	}
	for _, n := range numbers {
		few[n/32].Effective |= 1 << (n % 32)
	}
	if err := unix.Capset(&header, &few[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return errors.Join(f(), unix.Capset(&header, &all[0]))
}

// TestLeastPrivilege: the programs pass the verifier with no more than what the package says.
func TestLeastPrivilege(t *testing.T) {
	l := newLab(t)
	l.proxied(t, any4)
	for _, test := range []struct {
		name         string
		capabilities []uint
		mptcp        string // who answers such a client
	}{
		{"CAP_BPF and CAP_NET_ADMIN", []uint{unix.CAP_BPF, unix.CAP_NET_ADMIN}, "container"},
		{"CAP_PERFMON, too", []uint{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}, "proxy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var table *Table
			rig.Must(t, l.host.Do(func() error {
				return with(func() (err error) {
					table, err = Attach()
					return err
				}, test.capabilities...)
			}))
			defer func() { rig.Check(t, table.Close()) }()
			to := netip.AddrPortFrom(loopback4, port)
			_, err := table.Add(to, netip.AddrPortFrom(container4, l.backend))
			rig.Must(t, err)
			for _, c := range []struct {
				client
				want string
			}{{client{}, "container"}, {client{protocol: unix.IPPROTO_MPTCP}, test.mptcp}} {
				if a, err := c.ask(l.host, to); err != nil || a.name != c.want {
					t.Errorf("protocol %d: got %+v, %v; want the %s", c.protocol, a, err, c.want)
				}
			}
		})
	}
}

// TestCannot takes away what it needs. The error says what is missing.
func TestCannot(t *testing.T) {
	needroot.Check(t)
	attach := func() error {
		table, err := Attach()
		if err == nil {
			err = table.Close()
		}
		return err
	}
	forbid := func(call uint32, errno unix.Errno) func(*testing.T) error {
		return func(t *testing.T) (err error) {
			rig.Forbid(t, call, errno, func() { err = attach() })
			return err
		}
	}
	without := func(numbers ...uint) func(*testing.T) error {
		return func(*testing.T) error {
			return onThread(func() error { return with(attach, numbers...) })
		}
	}
	for _, test := range []struct {
		name    string
		attempt func(*testing.T) error
		is      error
		want    string
	}{
		{"no capability", without(), unix.EPERM, "without CAP_BPF and CAP_NET_ADMIN: "},
		{"no CAP_NET_ADMIN", without(unix.CAP_BPF), unix.EPERM, "without CAP_NET_ADMIN: "},
		{"no CAP_BPF", without(unix.CAP_NET_ADMIN), unix.EPERM, "without CAP_BPF: "},
		{"forbidden", forbid(unix.SYS_BPF, unix.EPERM), unix.EPERM,
			"the kernel's lockdown or a security module forbids it: "},
		{"Linux before 5.8", func(t *testing.T) (err error) {
			rig.ForbidCase(t, unix.SYS_BPF, 0, unix.BPF_PROG_LOAD, unix.EINVAL, func() { err = attach() })
			return err
		}, errors.ErrUnsupported, "the kernel does not know such a program, Linux 5.8 is needed: load getpeername4: "},
		{"no cgroups", func(*testing.T) error {
			return onThread(func() error { return errors.Join(unmountCgroups(), attach()) })
		}, errors.ErrUnsupported, "no cgroup hierarchy of version 2 is mounted (/proc/thread-self/mountinfo)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.attempt(t)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q and %v", err, test.want, test.is)
			}
		})
	}
	rig.Must(t, attach()) // nothing of it is remembered
}

// TestCookieByProgram: where the kernel does not tell processes what their namespace is, it tells a program, of which nothing
// is left then.
func TestCookieByProgram(t *testing.T) {
	l := newLab(t)
	var table *Table
	var err error
	rig.ForbidCase(t, unix.SYS_GETSOCKOPT, 2, unix.SO_NETNS_COOKIE, unix.ENOPROTOOPT, func() {
		if err = l.host.Enter(); err == nil {
			table, err = Attach()
		}
	})
	rig.Must(t, err)
	defer func() { rig.Check(t, table.Close()) }()
	if table.cookie != l.table.cookie {
		t.Errorf("the program has told %d, and the kernel tells %d", table.cookie, l.table.cookie)
	}
	e, err := table.Add(netip.AddrPortFrom(loopback4, port), netip.AddrPortFrom(container4, l.backend))
	rig.Must(t, err)
	a, err := client{}.ask(l.host, netip.AddrPortFrom(loopback4, port))
	if err != nil || a.name != "container" || e.Bypassed() != 1 {
		t.Errorf("got %+v, %v and %d bypassed; want the container and 1", a, err, e.Bypassed())
	}
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			if info, err := p.Info(); err == nil && info.Name == "bypass_cookie" {
				t.Errorf("program %d is left", id)
			}
			rig.Check(t, p.Close())
		}
	}
}

// TestCgroupElsewhere: the hierarchy may be mounted anywhere, as beside version 1.
func TestCgroupElsewhere(t *testing.T) {
	needroot.Check(t)
	directory := filepath.Join(t.TempDir(), "uni fied")
	rig.Must(t, os.Mkdir(directory, 0o700))
	rig.Must(t, onThread(func() error {
		if err := unmountCgroups(); err != nil {
			return err
		}
		if err := unix.Mount("cgroup2", directory, "cgroup2", 0, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		if path, err := rootCgroup(); err != nil || path != directory {
			return fmt.Errorf("the root is at %q, %w", path, err)
		}
		table, err := Attach()
		if err != nil {
			return err
		}
		return table.Close()
	}))
}

// TestMemlock: the limit is what it may be at most.
func TestMemlock(t *testing.T) {
	needroot.Check(t)
	var before, after unix.Rlimit
	rig.Must(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before))
	rig.Must(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 16, Max: before.Max}))
	table, err := Attach()
	rig.Must(t, err)
	rig.Must(t, table.Close())
	rig.Must(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &after))
	if after.Cur != after.Max || after.Max < before.Max {
		t.Errorf("the limit is %+v, want %d", after, after.Max)
	}
}

// unmountCgroups gives the thread a mount namespace without cgroups of version 2.
func unmountCgroups() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	for {
		path, err := rootCgroup()
		if err != nil {
			return nil
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return os.NewSyscallError("umount", err)
		}
	}
}

// TestBesideOthers: programs of other tools on the same cgroup see every connect, whichever came first.
func TestBesideOthers(t *testing.T) {
	l := newLab(t)
	before := count(t, l.table.cookie)
	rig.Must(t, l.table.Close())
	l.table = l.attach(t)
	after := count(t, l.table.cookie)
	l.publish(t, loopback4, container4)
	a, err := client{}.ask(l.host, netip.AddrPortFrom(loopback4, port))
	rig.Must(t, err)
	if a.name != "container" {
		t.Errorf("got %+v, want the container", a)
	}
	for name, other := range map[string]*ebpf.Map{"before": before, "after": after} {
		var n uint64
		rig.Must(t, other.Lookup(uint32(0), &n))
		if n != 1 {
			t.Errorf("the program that was attached %s has seen %d connects, want 1", name, n)
		}
	}
}

// TestBesideExclusive: where another tool's program wants none beside it, there is none, and the error says so.
func TestBesideExclusive(t *testing.T) {
	needroot.Check(t)
	root, err := rootCgroup()
	rig.Must(t, err)
	path, err := os.MkdirTemp(root, "portsplice")
	rig.Must(t, err)
	defer func() { rig.Check(t, os.Remove(path)) }()
	cgroup, err := os.Open(path)
	rig.Must(t, err)
	defer func() { rig.Check(t, cgroup.Close()) }()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		License: license, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	rig.Must(t, err)
	defer func() { rig.Check(t, p.Close()) }()
	rig.Must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(cgroup.Fd()), Program: p,
		Attach: ebpf.AttachCGroupInet4Connect}))
	err = new(Table).attach(cgroup, hook{name: "connect4", attach: ebpf.AttachCGroupInet4Connect}, p)
	const want = ": another tool's program is there by itself, without BPF_F_ALLOW_MULTI"
	if err == nil || explain(err).Error() != "attach connect4 to "+path+want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// count attaches a program that counts the connects of a namespace.
func count(t *testing.T, cookie uint64) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	rig.Must(t, err)
	t.Cleanup(func() { rig.Check(t, m.Close()) })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		License: "Apache-2.0", Instructions: asm.Instructions{
			asm.FnGetNetnsCookie.Call(),
			asm.LoadImm(asm.R1, int64(cookie), asm.DWord),
			asm.JNE.Reg(asm.R0, asm.R1, "leave"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "leave"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("leave"),
			asm.Return(),
		}})
	rig.Must(t, err)
	defer func() { rig.Check(t, p.Close()) }()
	path, err := rootCgroup()
	rig.Must(t, err)
	cgroup, err := os.Open(path)
	rig.Must(t, err)
	defer func() { rig.Check(t, cgroup.Close()) }()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p,
		Attach: ebpf.AttachCGroupInet4Connect})
	rig.Must(t, err)
	t.Cleanup(func() { rig.Check(t, l.Close()) })
	return m
}
