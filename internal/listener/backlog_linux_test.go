package listener

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// queue is how many connections may wait at a socket that listens (tcp_get_info of net/ipv4/tcp.c).
func queue(t *testing.T, fd int) int {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sacked)
}

// TestQueueOfOwnSocket: as many clients may wait as the kernel allows.
func TestQueueOfOwnSocket(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if got := queue(t, openOn(t, TCP, "127.0.0.1:0").fd); got != most {
		t.Errorf("%d clients may wait, want %d, which is net.core.somaxconn", got, most)
	}
}

// TestQueueOfAdoptedSocket: a socket that listens keeps its queue, whatever its length; one that does not yet gets all
// that the kernel allows.
func TestQueueOfAdoptedSocket(t *testing.T) {
	for _, length := range []int{7, 0} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := queue(t, openOn(t, TCP, "127.0.0.1:0").fd)
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		if length > 0 {
			want = length
			err = errors.Join(err, unix.Listen(fd, length))
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := adopt(fd, TCP)
		if err != nil {
			t.Fatal(err)
		}
		if got := queue(t, fd); got != want {
			t.Errorf("%d clients may wait, want %d", got, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
