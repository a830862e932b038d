package worker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/journal"
	"github.com/portsplice/portsplice/internal/relay"
)

// rendezvousFD is where the shim puts the socket on which the worker is asked.
const rendezvousFD = 3

const (
	// linger is how long a worker without ports waits for another, such as that of a container that is started anew. A new
	// worker takes milliseconds.
	linger = 2 * time.Second
	// patience is how long whoever connects may take to say what for.
	patience = 2 * time.Second
)

// Worker serves ports for shims.
type Worker struct {
	version  string
	began    time.Time
	listener *net.UnixListener
	host     relay.Host
	own      budget.Share // of the descriptors: what the ports themselves have

	bypass bypassed
	log    *journal.Log // for what is of no port
	spread func()       // is called when a port is served

	reloading sync.Mutex                // over Reload
	tracers   atomic.Pointer[[]*tracer] // nil: nobody is told of events; changed with mu held

	mu      sync.Mutex
	ports   map[*port]struct{} // that are served, or have connections
	meeting int                // peers that are being heard
	ending  *time.Timer        // runs while there are none
	tidying *time.Timer        // runs when one has come
	reserve *os.File           // gives up its descriptor to refuse a shim when there is no other
}

// Run is the worker's process, of the program's version. It returns when the last port has gone, and its connections.
func Run(version string) error {
	unix.CloseOnExec(rendezvousFD)
	_ = unix.Listen(rendezvousFD, unix.SOMAXCONN) // again, as the shim does: SO_PEERCRED is of who was last to
	signal.Ignore(unix.SIGUSR1)                   // it is for shims: here it would end all ports
	file := os.NewFile(rendezvousFD, "rendezvous")
	l, err := net.FileListener(file) // a duplicate
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("worker: descriptor %d: %w (the shim starts workers)", rendezvousFD, err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("worker: descriptor %d is not a unix socket (the shim starts workers)", rendezvousFD)
	}
	w := &Worker{version: version, began: time.Now(), listener: listener, log: journal.New(), spread: spread(),
		ports: make(map[*port]struct{})}
	w.host.Budget = budget.New(budget.Limit() - common)
	w.own.Of(w.host.Budget)
	w.reserve, _ = os.Open(os.DevNull)
	go w.reloadOnHangUp(hangUps())
	w.ending = time.AfterFunc(linger, w.end)
	w.tidying = time.AfterFunc(linger, debug.FreeOSMemory) // what the start of ports has left
	return w.accept()
}

// spread gives what takes all CPUs, once, for a worker that the shim has started with one, as nobody had set GOMAXPROCS: with
// one the runtime is ready sooner. Programs that the worker starts have the variable as it was.
func spread() func() {
	const variable, one = "GOMAXPROCS", "01" // no person writes it so: theirs stays
	if os.Getenv(variable) != one {
		return func() {}
	}
	_ = os.Unsetenv(variable) // it is a name
	return sync.OnceFunc(runtime.SetDefaultGOMAXPROCS)
}

const (
	// common is how many descriptors are not for ports, connections and flows: loops, and pipes while there are few streams.
	common = 64
	// each is how many a port has: its socket, the connection to its shim, and the shim's standard error.
	each = 3
)

// accept takes whoever connects, until the worker ends.
func (w *Worker) accept() error {
	for pause := time.Duration(0); ; {
		conn, err := w.listener.AcceptUnix()
		switch {
		case err == nil:
			pause = 0
			w.mu.Lock()
			w.meeting++
			w.mu.Unlock()
			go w.meet(conn)
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE) && w.refuse():
		default: // no memory, or no descriptor on the whole host
			pause = min(max(2*pause, time.Millisecond), time.Second)
			time.Sleep(pause)
		}
	}
}

// refuse tells the next shim that there are no descriptors left.
func (w *Worker) refuse() bool {
	if w.reserve == nil {
		return false
	}
	_ = w.reserve.Close()
	conn, err := w.listener.AcceptUnix()
	if err == nil {
		_ = answer(conn, fail, errCut)
		_ = conn.Close()
	}
	w.reserve, _ = os.Open(os.DevNull)
	return err == nil
}

// end ends the worker if it has no ports, and nobody is about to have one. A shim that connects meanwhile finds nobody,
// and starts another.
func (w *Worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(w.ports) > 0:
	case w.meeting > 0:
		w.ending.Reset(linger)
	default:
		_ = w.listener.Close()
	}
}

// meet hears what somebody wants who has connected.
func (w *Worker) meet(conn *net.UnixConn) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.meeting--
	}()
	peer, err := permitted(conn)
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(patience))
	}
	if err != nil {
		_ = answer(conn, decline, err)
		_ = conn.Close()
		return
	}
	message, fds, err := receive(conn)
	if which, asked := bytes.CutPrefix(message, []byte("trace")); asked {
		closeAll(fds)
		go w.trace(conn, string(bytes.TrimPrefix(which, []byte(" ")))) // the worker does not live on for it
		return
	}
	which, clients := strings.CutPrefix(string(message), "clients ")
	switch {
	case string(message) == "list", string(message) == "metrics":
		closeAll(fds) // nobody has a reason to send any
		w.reply(conn, w.List(string(message) == "metrics"))
	case string(message) == "stats":
		closeAll(fds)
		w.reply(conn, w.Totals())
	case string(message) == "options":
		closeAll(fds)
		w.reply(conn, w.Options())
	case string(message) == "reload":
		closeAll(fds)
		w.reply(conn, w.Reload())
	case clients:
		closeAll(fds)
		if told, err := w.Clients(which); err != nil {
			_ = answer(conn, fail, err)
		} else {
			w.reply(conn, told)
		}
	default:
		if err == nil {
			if err = ofThisHost(conn, peer); err != nil {
				closeAll(fds)
			} else {
				err = w.serve(conn, peer, message, fds)
			}
		}
		if err != nil {
			_ = answer(conn, verdictOf(err), err)
		}
	}
	_ = conn.Close()
}

// permitted gives the peer's process, if its user may ask.
func permitted(conn *net.UnixConn) (pid int, err error) {
	peer, err := peerOf(conn)
	switch {
	case err != nil:
		return 0, err
	case peer.Uid != 0 && int(peer.Uid) != os.Geteuid():
		return 0, fmt.Errorf("the worker of user %d does not serve user %d", os.Geteuid(), peer.Uid)
	}
	return int(peer.Pid), nil
}

// ofThisHost says why a process may be one of a container: it has another PID namespace. With the host's network and root as its
// user it would have the worker read files of the host, which errors quote (containerd had the like, CVE-2020-15257). A process has a
// number in its namespace and in each above: one of a container has several here, or none. They are told without the right to look
// at the process (ptrace(2)), which the worker may lack; and by a descriptor of the process, so that they are not another's.
func ofThisHost(conn *net.UnixConn, pid int) error {
	about := fmt.Sprintf("/proc/%d/status", pid)
	pidfd, err := option(conn, unix.GetsockoptInt, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		defer func() { _ = unix.Close(pidfd) }() // nothing was written
		about = fmt.Sprintf("/proc/self/fdinfo/%d", pidfd)
	case !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EOPNOTSUPP): // those are Linux before 6.5
		return undecided(pid, os.NewSyscallError("getsockopt SO_PEERPIDFD", err))
	}
	b, err := os.ReadFile(about)
	if errors.Is(err, os.ErrNotExist) {
		err = errGone
	}
	if err != nil {
		return undecided(pid, err)
	}
	_, line, namespaces := strings.Cut(string(b), "\nNSpid:\t")
	line, _, _ = strings.Cut(line, "\n")
	switch numbers := strings.Fields(line); {
	case !namespaces: // the kernel has none (CONFIG_PID_NS)
	case line == "-1":
		return undecided(pid, errGone)
	case len(numbers) != 1 || line == "0":
		return declined{fmt.Errorf("process %d is in a container: it has another PID namespace than the worker", pid)}
	}
	return nil
}

// errGone is what there is to say of a process that nothing is told of.
var errGone = errors.New("it has ended, or is not in /proc")

// undecided says why it is not known whether a process is one of a container.
func undecided(pid int, err error) error {
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return errCut
	}
	return declined{fmt.Errorf("process %d may be in a container: %w", pid, err)}
}

// peerOf tells who is at the other end: the process and user that connected, or that listened last.
func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	return option(conn, unix.GetsockoptUcred, unix.SO_PEERCRED)
}

// option reads an option of the connection's socket.
func option[T any](conn *net.UnixConn, read func(fd, level, name int) (T, error), name int) (value T, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return value, err
	}
	failed := raw.Control(func(fd uintptr) { value, err = read(int(fd), unix.SOL_SOCKET, name) })
	return value, errors.Join(failed, err)
}

// add registers a port, and remove forgets it.
func (w *Worker) add(p *port) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports[p] = struct{}{}
	w.own.Add(each)
	w.ending.Stop()
	w.tidying.Reset(linger)
}

func (w *Worker) remove(p *port) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ports, p)
	w.own.Add(-each)
	if len(w.ports) == 0 {
		w.ending.Reset(linger)
	}
}

// The verdicts on a request.
const (
	ready   = "0\n"
	fail    = "1\n"
	decline = "-"
)

// answer tells a shim the verdict, and the reason.
func answer(conn *net.UnixConn, verdict string, reason error) error {
	text := verdict + reason.Error()
	if verdict == fail {
		text += "\n"
	}
	_, err := conn.Write([]byte(text))
	return err
}

// declined is an error after which the shim is to serve the port alone.
type declined struct{ error }

func verdictOf(err error) string {
	if d := (declined{}); errors.As(err, &d) {
		return decline
	}
	return fail
}
