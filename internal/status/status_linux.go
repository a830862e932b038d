package status

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// pipeFD is where dockerd puts the pipe.
const pipeFD = 3

// Adopt takes the pipe, and keeps it from any program started later. It is called before anything else opens a
// descriptor, which would get the number 3 in a process that was given none. What is not a pipe that can only be
// written is somebody else's and is left alone, such as a shell's own connection: the answer is nil then.
func Adopt() *Pipe { return adopt(pipeFD) }

func adopt(fd int) *Pipe {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_WRONLY {
		return nil
	}
	unix.CloseOnExec(fd)
	return &Pipe{fd: fd}
}

func (p *Pipe) report(answer string) error {
	if p == nil {
		return nil
	}
	err := write(p.fd, []byte(answer))
	return errors.Join(err, unix.Close(p.fd))
}

func write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("status pipe: write: %w", err)
		default:
			b = b[n:]
		}
	}
	return nil
}
