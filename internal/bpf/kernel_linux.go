package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mounts is where a process sees what is mounted.
const mounts = "/proc/thread-self/mountinfo"

// rootCgroup is where the root of the cgroup hierarchy of version 2 is mounted.
func rootCgroup() (path string, err error) {
	file, err := os.Open(mounts)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // it was read only
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// 40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw, see proc_pid_mountinfo(5)
		mount, filesystem, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if strings.HasPrefix(filesystem, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return unescape.Replace(fields[4]), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", mounts, err)
	}
	return "", fmt.Errorf("%w: no cgroup hierarchy of version 2 is mounted (%s)", errors.ErrUnsupported, mounts)
}

// unescape undoes what the kernel does to spaces in a path.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// memlock is more than what the maps and programs count against RLIMIT_MEMLOCK: 2.6 MB, as if the maps were full.
const memlock = 4 << 20

// liftMemlock raises the limit that maps and programs count against before Linux 5.11 (bpf_charge_memlock in
// kernel/bpf/syscall.c): without CAP_SYS_RESOURCE, as far as it goes. If that is not enough, explain tells of it.
func liftMemlock() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil &&
		unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) != nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) // always allowed
	}
}

// explain says what an error of bpf(2) means. What the library says of EPERM is about an older kernel than works here.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel has no bpf(2): %w", unix.ENOSYS)
	case !errors.Is(err, unix.EPERM):
		var rejected *ebpf.VerifierError
		if errors.As(err, &rejected) && len(rejected.Log) == 0 && errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%w: the kernel does not know such a program, Linux 5.8 is needed: %w", errors.ErrUnsupported, err)
		}
		if rejected != nil {
			return fmt.Errorf("the kernel rejects the program: %w", err)
		}
		return err
	}
	if missing := missingCapabilities(); len(missing) > 0 {
		return fmt.Errorf("without %s: %w", strings.Join(missing, " and "), unix.EPERM)
	}
	if b, _ := os.ReadFile("/proc/thread-self/uid_map"); strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" {
		return fmt.Errorf("capabilities of a user namespace do not count (rootless): %w", unix.EPERM)
	}
	const forbidden = "the kernel's lockdown or a security module forbids it"
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur < memlock {
		return fmt.Errorf(forbidden+", or, before Linux 5.11, RLIMIT_MEMLOCK of %d bytes: %w", limit.Cur, unix.EPERM)
	}
	return fmt.Errorf(forbidden+": %w", unix.EPERM)
}

// missingCapabilities are those that it takes and this thread has not.
func missingCapabilities() (names []string) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return nil
	}
	for _, c := range []struct {
		name   string
		number uint
	}{{"CAP_BPF", unix.CAP_BPF}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		has := data[c.number/32].Effective>>(c.number%32)&1 != 0 || data[0].Effective>>unix.CAP_SYS_ADMIN&1 != 0
		if !has {
			names = append(names, c.name)
		}
	}
	return names
}
