package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// neededDescriptors is what the greediest port, of the engine splice, opens to serve one client: the frontend's socket, an
// eventfd each for SIGUSR1 and for its loop, two epoll instances and an eventfd for Go's poller, a duplicate of the
// loop's, and two sockets and a pipe for the client; and one to spare.
const neededDescriptors = 12

// enoughDescriptors says whether so many can be opened. Go's runtime ends the process without a reason when it gets none
// for its poller, and a port that has none for a client would never serve one.
func enoughDescriptors() error {
	const plenty = 64 // saves every ordinary start the trial
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= plenty {
		return nil
	}
	var opened []int
	var err error
	for err == nil && len(opened) < neededDescriptors {
		var fd int
		if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
			opened = append(opened, fd)
		}
	}
	for _, fd := range opened {
		_ = unix.Close(fd) // nothing was done with it
	}
	if !errors.Is(err, unix.EMFILE) {
		return nil
	}
	return fmt.Errorf("%d descriptors can be opened (RLIMIT_NOFILE is %d), and a port needs %d to serve one client",
		len(opened), limit.Cur, neededDescriptors)
}
