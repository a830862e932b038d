package fallback

import (
	"errors"
	"syscall"
)

// useless says whether an error of accept means that the listener will never give a connection again: it was shut down
// or closed by somebody else, or a sandbox does not know the call. (EPERM and EACCES may be about one client.)
func useless(err error) bool {
	for _, lasting := range []error{
		syscall.EINVAL, syscall.EBADF, syscall.ENOTSOCK, syscall.ENOSYS,
	} {
		if errors.Is(err, lasting) {
			return true
		}
	}
	return false
}
