package fallback

import (
	"errors"
	"syscall"
)

// useless says whether an error of accept means that the listener will never give a connection again: it was shut down
// or closed by somebody else, or a sandbox does not know the call.
func useless(err error) bool {
	return isOneOf(err, syscall.EINVAL, syscall.EBADF, syscall.ENOTSOCK, syscall.ENOSYS)
}

// forbidden says whether a sandbox or a policy forbids accept, which may be for a while only.
func forbidden(err error) bool { return isOneOf(err, syscall.EPERM, syscall.EACCES) }

// scarce says whether something has run out that comes back, for the process or the machine.
func scarce(err error) bool {
	return isOneOf(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS)
}

func isOneOf(err error, errnos ...syscall.Errno) bool {
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
