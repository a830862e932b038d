package listener

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestQueueOfOwnSocket: as many clients may wait as the kernel allows.
func TestQueueOfOwnSocket(t *testing.T) {
	most := longestQueue()
	if most == 0 {
		t.Fatal("net.core.somaxconn cannot be read")
	}
	if got := queueOf(openOn(t, TCP, "127.0.0.1:0").fd); got != most {
		t.Errorf("%d clients may wait, want %d, which is net.core.somaxconn", got, most)
	}
}

// TestQueueOfAdoptedSocket: it gets all that the kernel allows, whether it listens already or not. (That a longer one is kept
// takes a kernel whose limit was lowered: TestLongQueueIsKept of cmd/portsplice.)
func TestQueueOfAdoptedSocket(t *testing.T) {
	for _, length := range []int{7, 0} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := queueOf(openOn(t, TCP, "127.0.0.1:0").fd)
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		if length > 0 {
			err = errors.Join(err, unix.Listen(fd, length))
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := adopt(fd, TCP)
		if err != nil {
			t.Fatal(err)
		}
		if got := queueOf(fd); got != want {
			t.Errorf("%d clients may wait, want %d", got, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
