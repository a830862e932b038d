package vanish

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel takes the interval, within its bounds; one that does not know the option is left alone.
func TestSetRetransmission(t *testing.T) {
	for interval, want := range map[time.Duration]int{15 * time.Second: 15_000, time.Millisecond: 1000, time.Hour: 120_000} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		SetRetransmission(fd, interval)
		got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMax)
		if err == nil && got != want {
			t.Errorf("%v: %d ms, want %d", interval, got, want)
		}
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
}
