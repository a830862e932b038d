package relay

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// TestWithoutSplice asks for the engine splice where splice(2) is not to be had: the error says why not, and the socket
// is closed. (A port that is served is so to the end of its process: what -engine auto does then is tested in
// cmd/portsplice.)
func TestWithoutSplice(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM, unix.EINVAL} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			c := config.Config{
				Protocol: listener.TCP, Engine: config.Splice,
				Frontend: netip.AddrPortFrom(rig.Loopback, 0), Backend: netip.AddrPortFrom(rig.Loopback, 1),
			}
			socket, err := listener.Open(c.Protocol, c.Frontend)
			rig.Must(t, err)
			rig.Forbid(t, unix.SYS_SPLICE, errno, func() { _, err = new(Host).Start(c, socket, Audience{}) })
			if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, errno) {
				t.Errorf("got %v; want an error that wraps %v and %v", err, errors.ErrUnsupported, errno)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "engine splice: ") {
				t.Errorf("the error does not name the engine: %v", err)
			}
		})
	}
}

// TestBackendThatIsNone: whatever engine is to serve the port, an error closes its socket.
func TestBackendThatIsNone(t *testing.T) {
	socket, err := listener.Open(listener.TCP, netip.AddrPortFrom(rig.Loopback, 0))
	rig.Must(t, err)
	h := new(Host)
	defer h.Close()
	if _, err := h.Start(config.Config{Protocol: listener.TCP, Engine: config.Splice}, socket, Audience{}); err == nil {
		t.Error("a port without a backend was started")
	}
}
