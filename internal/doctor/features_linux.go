package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/bypass"
)

// features tries what the kernel has; and the local bypass, where a dockerd starts the programs that have it.
func features(ctx context.Context, version string, daemons []Daemon) []Feature {
	all := []Feature{
		{"splice", trySplice(), "streams are copied through the program", "see what forbids splice(2): seccomp, gVisor"},
		{"UDP_GRO", tryUDP(unix.UDP_GRO, 1), "UDP is received datagram by datagram", "Linux 5.0 or later has it"},
		{"UDP_SEGMENT", tryUDP(unix.UDP_SEGMENT, 1400), "UDP is sent datagram by datagram", "Linux 4.18 or later has it"},
		{"SCTP", trySCTP(), "no SCTP port can be published", "if one is to be: modprobe sctp"},
		{"Landlock", tryLandlock(), "no program of this host can shut itself in by it", "Linux 5.13 or later has it, if lsm= names landlock"},
	}
	for _, d := range daemons {
		if target, err := filepath.EvalSymlinks(d.Proxy); err == nil && d.Ours {
			all = append(all, Feature{"local bypass", tryBypass(ctx, version, filepath.Dir(target)),
				"PORTSPLICE_LOCAL_BYPASS=auto has no effect, and \"require\" forbids ports", "docs/local-bypass.md says what it needs"})
			break
		}
	}
	return all
}

// trySplice moves a byte from a socket into a pipe.
func trySplice() error {
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer closeAll(sockets[:])
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	defer closeAll(pipe[:])
	if _, err := unix.Write(sockets[0], []byte{1}); err != nil {
		return os.NewSyscallError("write", err)
	}
	_, err = unix.Splice(sockets[1], nil, pipe[1], nil, 1, unix.SPLICE_F_NONBLOCK)
	return os.NewSyscallError("splice", err)
}

func tryUDP(option, value int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer closeAll([]int{fd})
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_UDP, option, value))
}

func trySCTP() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		closeAll([]int{fd})
	}
	return os.NewSyscallError("socket", err)
}

// tryLandlock asks for the version of Landlock (landlock_create_ruleset(2)).
func tryLandlock() error {
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	return nil
}

// tryBypass starts the program of the bypass that the workers would, and hears whether it is ready (see package bypass).
func tryBypass(ctx context.Context, version, directory string) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), bypass.Program), os.NewFile(uintptr(fds[1]), bypass.Program)
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	program := exec.CommandContext(ctx, filepath.Join(directory, bypass.Program), version)
	program.ExtraFiles = []*os.File{theirs}
	err = errors.Join(program.Start(), theirs.Close())
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return errors.Join(err, program.Process.Kill(), program.Wait())
	}
	answer := make([]byte, 1024)
	_ = conn.SetReadDeadline(time.Now().Add(patience)) // the program is killed then, too
	n, err := conn.Read(answer)
	_ = conn.Close()   // by which it ends
	_ = program.Wait() // it was asked for its word, not for its status
	word, reason, _ := strings.Cut(string(answer[:n]), " ")
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", bypass.Program, err)
	case word == "ok":
		return nil
	}
	_, reason, _ = strings.Cut(reason, " ") // after its class
	return errors.New(reason)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was to be kept
	}
}
