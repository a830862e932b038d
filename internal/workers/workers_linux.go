package workers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/worker"
)

// Ask sends a question (see worker.Ask) to every worker of the host that it can find, at once, and gives the answers. The
// error is of those that do not answer; the answers of others come along.
func Ask[T worker.Answer](question string) ([]Answer[T], error) {
	return everywhere(func(namespace string) (answers []Answer[T], err error) {
		told, err := worker.Ask[T](question)
		for _, t := range told {
			answers = append(answers, Answer[T]{namespace, t})
		}
		return answers, err
	})
}

// Trace has the workers of the host that it can find, and that are not known yet, tell of events (see worker.Trace).
func Trace(pattern string, known func(namespace, name string) bool) ([]Stream, error) {
	return everywhere(func(namespace string) (streams []Stream, err error) {
		all, err := worker.Trace(pattern, func(name string) bool { return known(namespace, name) })
		for _, s := range all {
			streams = append(streams, Stream{namespace, s})
		}
		return streams, err
	})
}

// everywhere calls f on a thread in each network namespace that has workers, in all of them at once, and gives all results.
func everywhere[T any](f func(namespace string) ([]T, error)) ([]T, error) {
	others, err := others()
	all := make([][]T, 1+len(others))
	errs := make([]error, 1+len(others))
	var running sync.WaitGroup
	for i, n := range others {
		running.Go(func() {
			entered := n.do(func() { all[1+i], errs[1+i] = f(n.name) })
			errs[1+i] = errors.Join(errs[1+i], entered)
		})
	}
	all[0], errs[0] = f("")
	running.Wait()
	return slices.Concat(all...), errors.Join(append(errs, err)...)
}

// namespace is a network namespace other than this process's, in which there are workers.
type namespace struct {
	name string
	file *os.File
}

// others finds them. Who is not root may enter none.
func others() (found []namespace, err error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{own: true}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		name, err := os.Readlink("/proc/" + p.Name() + "/ns/net")
		if err != nil || seen[name] { // it has ended, and whoever else is there will do; or a sandbox hides it
			continue
		}
		seen[name] = true
		sockets, err := os.ReadFile("/proc/" + p.Name() + "/net/unix")
		if err != nil || !bytes.Contains(sockets, []byte(" @portsplice/")) {
			continue
		}
		file, err := os.Open("/proc/" + p.Name() + "/ns/net")
		if err != nil {
			continue
		}
		found = append(found, namespace{name, file})
	}
	return found, nil
}

// do runs f on a thread inside, as a user whom the workers there answer, and closes the namespace. The thread ends with it.
func (n namespace) do(f func()) error {
	defer func() { _ = n.file.Close() }() // it was only read
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := n.enter()
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}

// enter takes the thread to the namespace. Workers answer their own user and root. To those of another user namespace, as
// a rootless dockerd's are, this root is nobody, and its owner is root.
func (n namespace) enter() error {
	fd := int(n.file.Fd())
	owner, foreign, err := owner(fd)
	if err != nil {
		return fmt.Errorf("network namespace %s: its owner: %w", n.name, err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network namespace %s: %w", n.name, os.NewSyscallError("setns", err))
	}
	if foreign {
		const same = ^uintptr(0)
		// Package unix's function is for all threads.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(owner), same); errno != 0 {
			return fmt.Errorf("network namespace %s: %w", n.name, os.NewSyscallError("setresuid", errno))
		}
	}
	return nil
}

// owner is the user who has made the user namespace that a network namespace belongs to, if that is not this process's
// (ioctl_ns(2)).
func owner(network int) (uid uint32, foreign bool, err error) {
	user, err := unix.IoctlRetInt(network, unix.NS_GET_USERNS)
	if err != nil {
		return 0, false, os.NewSyscallError("ioctl NS_GET_USERNS", err)
	}
	defer func() { _ = unix.Close(user) }() // it was only read
	var theirs, ours unix.Stat_t
	if err := errors.Join(unix.Fstat(user, &theirs), unix.Stat("/proc/thread-self/ns/user", &ours)); err != nil {
		return 0, false, os.NewSyscallError("stat", err)
	}
	if theirs.Ino == ours.Ino {
		return 0, false, nil
	}
	uid, err = unix.IoctlGetUint32(user, unix.NS_GET_OWNER_UID)
	return uid, true, os.NewSyscallError("ioctl NS_GET_OWNER_UID", err)
}
