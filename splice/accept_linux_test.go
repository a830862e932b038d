package splice

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/rig"
)

// scriptedEngine is an engine on a kernel that fails.
func scriptedEngine(t *testing.T, k kernel) *Engine {
	t.Helper()
	e, err := New(Options{})
	rig.Must(t, err)
	e.kernel = k
	t.Cleanup(func() { rig.Check(t, e.Close()) })
	return e
}

// failures collects what is reported.
type failures struct {
	mu  sync.Mutex
	all []error
}

func (f *failures) report(op string, _, _ netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, errors.Join(errors.New(op), err))
}

func (f *failures) has(op string, cause error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, err := range f.all {
		if errors.Is(err, cause) && strings.HasPrefix(err.Error(), op) {
			return true
		}
	}
	return false
}

// failing is a kernel where some calls fail.
type failing struct {
	linux
	socketErrno, acceptErrno, watchErrno, connectErrno unix.Errno
}

func (f failing) socket(family int) (int, unix.Errno) {
	if f.socketErrno != 0 {
		return -1, f.socketErrno
	}
	return f.linux.socket(family)
}

func (f failing) accept(listener int, from *unix.RawSockaddrAny) (int, unix.Errno) {
	if f.acceptErrno != 0 {
		return -1, f.acceptErrno
	}
	return f.linux.accept(listener, from)
}

func (f failing) connect(fd int, to *sockaddr) unix.Errno {
	if f.connectErrno != 0 {
		return f.connectErrno
	}
	return f.linux.connect(fd, to)
}

func (f failing) watch(on *eventloop.Loop, fd int, events uint32, h eventloop.Handler) (eventloop.Handle, error) {
	if f.watchErrno != 0 {
		return eventloop.Handle{}, sysError("epoll_ctl", f.watchErrno)
	}
	return f.linux.watch(on, fd, events, h)
}

// TestAcceptBatch: of many clients who wait, a listener takes a batch in a turn, and no more: then it is the others' turn.
func TestAcceptBatch(t *testing.T) {
	const waiting = 2*acceptBatch + 1
	e := scriptedEngine(t, linux{})
	fd, addr := rig.Bind(t, rig.Loopback)
	rig.Must(t, unix.Listen(fd, waiting))
	for range waiting {
		rig.Dial(t, "tcp", addr)
	}
	backend := rig.Address(rig.Listen(t, rig.Loopback))
	e.group.First().Do(func() { // which takes no turn meanwhile
		port, err := e.Add(fd, backend)
		if err != nil {
			t.Error(err)
			return
		}
		for turn, want := range []uint64{acceptBatch, 2 * acceptBatch, waiting, waiting} {
			if port.listener.Ready(unix.EPOLLIN); port.Stats().Accepted != want {
				t.Errorf("%d are accepted after %d turns, want %d", port.Stats().Accepted, turn+1, want)
			}
		}
	})
}

// TestFailingAcceptDoesNotSpin lets a client wait for a port whose loop cannot accept, and has the loop turn many
// times: it tries again after a pause, and the client waits meanwhile.
func TestFailingAcceptDoesNotSpin(t *testing.T) {
	for _, test := range []struct {
		name   string
		kernel failing
	}{
		{"no socket for the backend", failing{socketErrno: unix.EMFILE}},
		{"no descriptor for the client", failing{acceptErrno: unix.ENFILE}},
		{"no memory for the client", failing{acceptErrno: unix.ENOMEM}},
		{"no buffers for the client", failing{acceptErrno: unix.ENOBUFS}},
		{"not allowed", failing{acceptErrno: unix.EPERM}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := scriptedEngine(t, test.kernel)
			fd, addr := rig.Bind(t, rig.Loopback)
			begin := time.Now()
			ended := make(chan error, 1)
			_, err := e.AddWith(fd, rig.Address(rig.Listen(t, rig.Loopback)), Options{Ended: func(err error) { ended <- err }})
			rig.Must(t, err)
			rig.Dial(t, "tcp", addr)
			rig.Until(t, "accept fails twice", func() bool { return e.Stats().AcceptErrors > 1 })
			for range 1000 {
				e.group.First().Do(func() {})
			}
			most := 2 + uint64(time.Since(begin)/acceptPause)
			if s := e.Stats(); s.AcceptErrors > most || s.Accepted != 0 {
				t.Errorf("%v; want %d accept errors at the most", s, most)
			}
			select {
			case err := <-ended:
				t.Errorf("the port ended: %v", err)
			default:
			}
		})
	}
}

// TestLastingFailures: what will never work is not waited for: the client is reset, at once and with a line. (An IPv6
// container and a kernel without IPv6; a sandbox.)
func TestLastingFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		kernel failing
		op     string
		errno  unix.Errno
	}{
		{"no IPv6", failing{socketErrno: unix.EAFNOSUPPORT}, "dial", unix.EAFNOSUPPORT},
		{"sockets are forbidden", failing{socketErrno: unix.EPERM}, "dial", unix.EPERM},
		{"sockets are not allowed", failing{socketErrno: unix.EACCES}, "dial", unix.EACCES},
		{"no watches are left", failing{watchErrno: unix.ENOSPC}, "relay", unix.ENOSPC},
		{"no memory for epoll", failing{watchErrno: unix.ENOMEM}, "relay", unix.ENOMEM},
		{"connect is forbidden", failing{connectErrno: unix.EPERM}, "dial", unix.EPERM},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told failures
			e := scriptedEngine(t, test.kernel)
			fd, addr := rig.Bind(t, rig.Loopback)
			p, err := e.AddWith(fd, rig.Address(rig.Listen(t, rig.Loopback)), Options{Report: told.report})
			rig.Must(t, err)
			rig.WantReset(t, addr)
			if !told.has(test.op, test.errno) {
				t.Errorf("reported %v, want %q and %v", told.all, test.op, test.errno)
			}
			rig.Until(t, "nothing is left", func() bool { return p.Stats().Active == 0 })
			if s := p.Stats(); s.Accepted != 1 || s.AcceptErrors != 0 {
				t.Errorf("%v; want 1 accepted", s)
			}
		})
	}
}

// TestAcceptUnknown: a sandbox that does not know the call ends the port, so that clients are refused.
func TestAcceptUnknown(t *testing.T) {
	e := scriptedEngine(t, failing{acceptErrno: unix.ENOSYS})
	fd, addr := rig.Bind(t, rig.Loopback)
	ended := make(chan error, 1)
	_, err := e.AddWith(fd, addr, Options{Ended: func(err error) { ended <- err }})
	rig.Must(t, err)
	rig.Dial(t, "tcp", addr)
	if err := <-ended; !errors.Is(err, unix.ENOSYS) {
		t.Errorf("the port ended by %v, want %v", err, unix.ENOSYS)
	}
}

// TestListenerThatIsGone: a port whose socket does not listen any more ends, with the reason.
func TestListenerThatIsGone(t *testing.T) {
	e := scriptedEngine(t, linux{})
	fd, addr := rig.Bind(t, rig.Loopback)
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	rig.Must(t, err)
	defer closeFD(own)
	ended := make(chan error, 1)
	p, err := e.AddWith(fd, addr, Options{Ended: func(err error) { ended <- err }})
	rig.Must(t, err)
	rig.Must(t, unix.Shutdown(own, unix.SHUT_RD)) // which ends listening
	if err := <-ended; !errors.Is(err, unix.EINVAL) {
		t.Errorf("the port ended by %v, want %v", err, unix.EINVAL)
	}
	errs := p.Stats().AcceptErrors
	for range 100 {
		e.group.First().Do(func() {})
	}
	if again := p.Stats().AcceptErrors; again != errs {
		t.Errorf("accept went on failing: %d, then %d", errs, again)
	}
}

// poor is a kernel that has so many sockets, and no more.
type poor struct {
	linux
	left *atomic.Int64
}

func (p poor) socket(family int) (int, unix.Errno) {
	if p.left.Add(-1) < 0 {
		return -1, unix.EMFILE
	}
	return p.linux.socket(family)
}

// TestDescriptorsThatWaitForEachOther: a port leads back to itself, by way of another, and every connection becomes a
// chain that takes all descriptors there are and waits for more. It is dissolved, and the client reset.
func TestDescriptorsThatWaitForEachOther(t *testing.T) {
	var left atomic.Int64
	left.Store(50)
	e := scriptedEngine(t, poor{left: &left})
	o := Options{DialTimeout: 100 * time.Millisecond}
	first, firstAddr := rig.Bind(t, rig.Loopback)
	second, secondAddr := rig.Bind(t, rig.Loopback)
	for fd, backend := range map[int]netip.AddrPort{first: secondAddr, second: firstAddr} {
		_, err := e.AddWith(fd, backend, o)
		rig.Must(t, err)
	}
	rig.WantReset(t, firstAddr)
	rig.Until(t, "all connections have ended", func() bool { s := e.Stats(); return s.Active == 0 && s.AcceptErrors > 0 })
}

// TestEachWaitIsItsOwn: what descriptors were missing for once is no reason to reset, at once, a client that comes when
// they are missing again, or while some come back.
func TestEachWaitIsItsOwn(t *testing.T) {
	long := 10 * time.Minute // ago
	for _, test := range []struct {
		name        string
		dialTimeout time.Duration
		waiting     int // clients
		left        int64
		scarce      func(scarce, now time.Duration) bool
	}{
		{"all who waited are gone", time.Nanosecond, 1, 0, func(scarce, _ time.Duration) bool { return scarce == 0 }},
		{"one was served", time.Hour, 2, 1, func(scarce, now time.Duration) bool { return scarce > 0 && now-scarce < long }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var left atomic.Int64
			left.Store(test.left)
			e := scriptedEngine(t, poor{left: &left})
			fd, addr := rig.Bind(t, rig.Loopback)
			p, err := e.AddWith(fd, rig.Backend(t, rig.Echo), Options{DialTimeout: test.dialTimeout})
			rig.Must(t, err)
			first := e.group.First()
			first.Do(func() {
				p.listener.failing = first.Now() - long
				for range test.waiting {
					rig.Dial(t, "tcp", addr)
				}
			})
			rig.Until(t, "the wait is another", func() (is bool) {
				first.Do(func() { is = test.scarce(p.listener.failing, first.Now()) })
				return is
			})
		})
	}
}

// TestBacklog: a socket that does not listen gets the longest queue that the kernel gives, and one that does keeps what
// whoever opened it chose.
func TestBacklog(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	rig.Must(t, err)
	longest, err := strconv.Atoi(strings.TrimSpace(string(text)))
	rig.Must(t, err)
	if longest < 3 {
		t.Fatalf("net.core.somaxconn is %d", longest)
	}
	for _, test := range []struct {
		name    string
		backlog int // of a socket that listens
		want    int
	}{{"own", -1, longest}, {"short", 1, 1}, {"as long as can be", longest, longest}} {
		t.Run(test.name, func(t *testing.T) {
			fd, _ := rig.Bind(t, rig.Loopback)
			defer closeFD(fd)
			if test.backlog >= 0 {
				rig.Must(t, unix.Listen(fd, test.backlog))
			}
			rig.Must(t, listen(fd))
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			rig.Must(t, err)
			if int(info.Sacked) != test.want {
				t.Errorf("the queue has room for %d, want %d", info.Sacked, test.want)
			}
		})
	}
}

// TestOptionsAreOptional: a kernel that refuses options serves all the same (WSL, gVisor).
func TestOptionsAreOptional(t *testing.T) {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	rig.Must(t, err)
	defer closeFD(null)
	setTCPOptions(null, Options{}.withDefaults().KeepAlive) // each of them fails
}
