package transparent

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestPortsOfClients connects from as many clients' addresses as the host has ports for its own connections, and looks
// whether the host can still make one: it can where the kernel chose the ports, and not where they were the clients'.
func TestPortsOfClients(t *testing.T) {
	const first, ports = 40_000, 8
	n := host(t)
	rig.Must(t, n.Sysctl("ipv4/ip_local_port_range", "40000 40007"))
	backend := &unix.SockaddrInet4{Addr: [4]byte{198, 18, 0, 2}, Port: 80}
	for _, test := range []struct {
		name     string
		byNumber bool
		want     error
	}{{"chosen by the kernel", false, unix.EINPROGRESS}, {"the client's", true, unix.EADDRNOTAVAIL}} {
		t.Run(test.name, func(t *testing.T) {
			rig.Must(t, n.Do(func() error {
				for i := range ports {
					from := unix.SockaddrInet4{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).As4()}
					if test.byNumber {
						from.Port = first + i
					}
					fd := open(t)
					if errno := Set(fd, unix.AF_INET); errno != 0 {
						return os.NewSyscallError("setsockopt IP_TRANSPARENT", errno)
					}
					if err := unix.Bind(fd, &from); err != nil {
						return os.NewSyscallError("bind", err)
					}
					if err := unix.Connect(fd, backend); !errors.Is(err, unix.EINPROGRESS) {
						return os.NewSyscallError("connect", err)
					}
				}
				own := unix.Connect(open(t), &unix.SockaddrInet4{Addr: [4]byte{198, 18, 0, 2}, Port: 81})
				if !errors.Is(own, test.want) {
					t.Errorf("a connection of the host's own: %v, want %v", own, test.want)
				}
				return nil
			}))
		})
	}
}

func open(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return -1
	}
	t.Cleanup(func() { rig.Check(t, unix.Close(fd)) })
	return fd
}
