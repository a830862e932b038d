package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/internal/worker"
)

// Users other than root. They need not exist.
const somebody, another = 65533, 65534

// as runs f as that user. Other threads are root meanwhile.
func as(t *testing.T, user int, f func()) {
	t.Helper()
	become := func(user int) {
		const same = ^uintptr(0)
		// The functions of packages unix and syscall are for all threads.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(user), same); errno != 0 {
			panic(os.NewSyscallError("setresuid", errno)) // the thread is of no use to any other test
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become(user)
	defer become(0)
	f()
}

// rendezvous is where a user's shims and worker meet, as package worker describes it.
func (l *lab) rendezvous(t *testing.T, user int) *net.UnixAddr {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(l.dir, "portsplice"), &st))
	name := fmt.Sprintf("@portsplice/1/%x/%x-%x-%x.%x", user, st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec)
	return &net.UnixAddr{Name: name, Net: "unixpacket"}
}

// says sends a message as that user, with a standard error, and gives all that the worker answers.
func (l *lab) says(t *testing.T, user, worker int, message string) (answer string) {
	t.Helper()
	address := l.rendezvous(t, worker)
	as(t, user, func() {
		conn, err := net.DialUnix("unixpacket", nil, address)
		must(t, err)
		answer = converse(t, conn, message)
	})
	return answer
}

// converse is says on a connection, which it closes.
func converse(t *testing.T, conn *net.UnixConn, message string) (answer string) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	must(t, err)
	defer func() { must(t, errors.Join(null.Close(), conn.Close())) }()
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	var rights []byte
	if strings.HasPrefix(message, "serve") {
		rights = unix.UnixRights(int(null.Fd()))
	}
	// A worker that has refused already is gone, and its answer is there.
	if _, _, err := conn.WriteMsgUnix([]byte(message), rights, nil); !errors.Is(err, unix.EPIPE) {
		must(t, err)
	}
	for b := make([]byte, 1<<16); !strings.HasSuffix(answer, "\n"); { // as JSON does, and "0\n"
		n, err := conn.Read(b)
		if errors.Is(err, unix.ECONNRESET) {
			continue // it has not read the message; its answer comes now
		}
		if err != nil || n == 0 {
			break
		}
		answer += string(b[:n])
	}
	return answer
}

// containerVariable, when it is set, makes the test binary a process that others know a socket by: see beContained.
const containerVariable = "TEST_AS_A_CONTAINER"

// by is which process others know a socket by (SO_PEERCRED). All have root as their user, and the host's network.
type by int

const (
	itself    by = iota // the test
	container           // one with a PID namespace of its own
	ended               // one of the host that has ended, so that its number may be another's
)

// take has such a process listen on a socket or, if there is a name, connect it.
func (b by) take(t *testing.T, socket *os.File, name string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), containerVariable+"="+cmp.Or(name, "listen"))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{socket}, os.Stderr
	if b == container {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, started := io.ReadFull(stdout, make([]byte, 1))
	end := func() { must(t, errors.Join(stdin.Close(), cmd.Wait(), started)) }
	if b == ended || started != nil {
		end()
	} else {
		t.Cleanup(end)
	}
}

// beContained does what take is asked for, with descriptor 3, and ends with its standard input.
func beContained(name string) (err error) {
	if name == "listen" {
		err = unix.Listen(3, unix.SOMAXCONN)
	} else {
		err = unix.Connect(3, &unix.SockaddrUnix{Name: name})
	}
	if err == nil {
		fmt.Println()
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// request is what a shim says, as package worker describes it.
func request(args []string) string {
	return fmt.Sprintf("serve %x 0\x00%s\x00", len(args), strings.Join(slices.Concat(args, leakcheck.Environment()), "\x00"))
}

// TestAnothersAddress: whoever has taken the worker's address, and is none, keeps no port from being served, and is told
// nothing about it.
func TestAnothersAddress(t *testing.T) {
	needroot.Check(t)
	for _, c := range []struct {
		name    string
		user    int
		listens bool
		by      by
		reason  string
	}{
		{"another user listens", another, true, itself, "another user has the worker's address"},
		{"another user does not listen", another, false, itself, "who has the worker's address does not listen"},
		{"a container listens", 0, true, container, "who has the worker's address may be in a container"},
		{"a process listens that has ended", 0, true, ended, "who has the worker's address has ended"},
		{"nothing is answered", 0, true, itself, "the worker does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // two of them take the two seconds that a worker has to answer
			l := newLab(t)
			heard := l.squat(t, c.user, c.listens, c.by)
			frontend := freePort(t, "tcp", ours())
			start := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()))}
			p := l.run(start).serve(t)
			if !p.alone(t) || len(l.workers(t)) != 0 {
				t.Error("a worker serves the port")
			}
			exchange(t, dial(t, "tcp", frontend), "hello")
			until(t, "a line says why", func() bool { return len(p.log()) > 0 })
			want := "portsplice: the port is served without a worker: " + c.reason + "\n"
			if log := p.log(); len(log) != 1 || log[0] != want {
				t.Errorf("the log is %q, want %q", log, want)
			}
			p.signalled(t, syscall.SIGTERM)

			start.env = []string{"PORTSPLICE_WORKER=require"}
			p = l.run(start).start(t)
			if want := "1\nPORTSPLICE_WORKER=require: " + c.reason + "\n"; p.status != want {
				t.Errorf("the status is %q, want %q", p.status, want)
			}
			if code := p.ends(t); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			if told := heard(); (c.user != 0 || c.by != itself) && told != "" {
				t.Errorf("it was told %q", told)
			}
		})
	}
}

// TestUnseenWorker: a shim that cannot see who has the worker's address is not kept waiting by it, and says why.
func TestUnseenWorker(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	l.publish(t, "tcp", backend)
	for _, c := range []struct {
		name       string
		namespaces uintptr
		proc       string // what is mounted there
		reason     string
	}{
		{"without /proc", syscall.CLONE_NEWNS, "tmpfs", "there is no /proc to look at who has the worker's address"},
		{"in a container with the host's network", syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, "proc",
			"who has the worker's address may be in a container"},
	} {
		t.Run(c.name, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			shim := l.run(run{args: arguments("tcp", frontend, backend), namespaces: c.namespaces,
				env: []string{"PORTSPLICE_PROGRAM=" + filepath.Join(l.dir, "portsplice")}})
			shim.args = append([]string{"-c", `mount --make-rprivate / && mount -t "$0" none /proc && exec "$@"`, c.proc, shim.program}, shim.args...)
			shim.program = "sh"
			p := shim.serve(t)
			exchange(t, dial(t, "tcp", frontend), "hello")
			p.says(t, "portsplice: the port is served without a worker: "+c.reason+"\n")
			if ports := l.told(t); len(ports) != 1 {
				t.Errorf("the worker has ports %v, want one", ports)
			}
			p.signalled(t, syscall.SIGTERM)
		})
	}
}

// squat takes the address of root's worker, as that user or by another process, until the test ends. Whoever connects is heard,
// and not answered. The function that it gives tells what was said so far.
func (l *lab) squat(t *testing.T, user int, listens bool, by by) (told func() string) {
	t.Helper()
	address := unix.SockaddrUnix{Name: l.rendezvous(t, 0).Name}
	var fd int
	as(t, user, func() {
		var err error
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(t, err)
		must(t, unix.Bind(fd, &address))
		if listens {
			must(t, unix.Listen(fd, unix.SOMAXCONN)) // the user is that of now (unix(7), SO_PEERCRED)
		}
	})
	var heard rig.Output
	if !listens {
		t.Cleanup(func() { must(t, unix.Close(fd)) })
		return heard.String
	}
	file := os.NewFile(uintptr(fd), "rendezvous")
	if by != itself {
		by.take(t, file, "")
	}
	listener, err := net.FileListener(file) // a duplicate
	must(t, errors.Join(err, file.Close()))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for b := make([]byte, 1<<16); ; {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n, _ := conn.Read(b) // the end, from a shim that says nothing
			_, _ = heard.Write(b[:n])
			_ = conn.Close() // it was read only
		}
	}()
	t.Cleanup(func() {
		must(t, listener.Close())
		<-over
	})
	return heard.String
}

// TestAnothersClient: a worker answers its own user and root, whatever they want, and nobody else.
func TestAnothersClient(t *testing.T) {
	needroot.Check(t)
	for _, c := range []struct {
		owner     uint32
		permitted []int
		refused   []int
	}{
		{0, []int{0}, []int{somebody, another}},
		{somebody, []int{0, somebody}, []int{another}},
	} {
		t.Run(fmt.Sprintf("worker of %d", c.owner), func(t *testing.T) {
			l := newLab(t)
			must(t, os.Chmod(filepath.Dir(l.dir), 0o755)) // for the user
			frontend, backend := freePort(t, "tcp", ours()), echo(t, "tcp", ours())
			p := l.run(run{args: arguments("tcp", frontend, backend), user: c.owner}).serve(t)
			if p.alone(t) {
				t.Fatalf("the port is served without a worker: %q", p.log())
			}
			ask := func(user int, message string) string { return l.says(t, user, int(c.owner), message) }
			for _, user := range c.permitted {
				var list worker.List
				must(t, json.Unmarshal([]byte(ask(user, "list")), &list))
				if len(list.Ports) != 1 || list.Ports[0].Frontend != frontend.String() || list.Ports[0].Shim != p.Process.Pid {
					t.Errorf("user %d is told of ports %v, want %v", user, list.Ports, frontend)
				}
				third := freePort(t, "tcp", ours())
				if got := ask(user, request(arguments("tcp", third, backend))); got != "0\n" {
					t.Errorf("user %d is answered %q to a request", user, got)
				}
				until(t, "the port of the request has ended", func() bool {
					must(t, json.Unmarshal([]byte(ask(user, "list")), &list))
					return len(list.Ports) == 1
				})
			}
			third := freePort(t, "tcp", ours())
			for _, user := range c.refused {
				want := fmt.Sprintf("-the worker of user %d does not serve user %d", c.owner, user)
				for _, message := range []string{"list", "stats", request(arguments("tcp", third, backend))} {
					if got := ask(user, message); got != want {
						t.Errorf("user %d is answered %q to %q, want %q", user, got, message, want)
					}
				}
			}
			rig.Check(t, listensNot(third))
			p.signalled(t, syscall.SIGINT)
		})
	}
}

// TestContainersClient: a worker serves nothing for a process of a container that has the host's network, and answers what else
// it asks.
func TestContainersClient(t *testing.T) {
	needroot.Check(t)
	l := newLab(t)
	backend := echo(t, "tcp", ours())
	p, _ := l.publish(t, "tcp", backend)
	third := freePort(t, "tcp", ours())
	l.says(t, 0, 0, "list") // what it opens only once is open
	before := l.descriptors(t)
	const alone = "-process " // the shim is to serve it alone
	for _, c := range []struct {
		by                   by
		message, first, want string
	}{
		{container, "list", "{", fmt.Sprintf(`"shim":%d`, p.Process.Pid)},
		{container, "metrics", "{", `"ports":`},
		{container, "stats", "{", `"worker":`},
		{container, "options", "{", `"ports":`},
		{container, "reload", "{", `"ports":`},
		{container, request(arguments("tcp", third, backend)), alone, "is in a container: it has another PID namespace than the worker"},
		{ended, request(arguments("tcp", third, backend)), alone, "may be in a container: it has ended, or is not in /proc"},
	} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		file := os.NewFile(uintptr(fd), "another's")
		c.by.take(t, file, l.rendezvous(t, 0).Name)
		conn, err := net.FileConn(file) // a duplicate
		must(t, errors.Join(err, file.Close()))
		answer := converse(t, conn.(*net.UnixConn), c.message)
		if !strings.HasPrefix(answer, c.first) || !strings.Contains(answer, c.want) {
			t.Errorf("%q is answered %q, want %q", c.message, answer, c.want)
		}
	}
	rig.Check(t, listensNot(third))
	until(t, "the worker has closed what came with the requests", func() bool { return l.descriptors(t) <= before })
	p.signalled(t, syscall.SIGINT)
}

// listensNot says so if somebody listens.
func listensNot(addr netip.AddrPort) error {
	conn, err := net.Dial("tcp", addr.String())
	if err == nil {
		return errors.Join(fmt.Errorf("somebody listens on %v", addr), conn.Close())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// TestAskingAsAnother: a user's question passes over workers that do not answer him, which is not an error.
func TestAskingAsAnother(t *testing.T) {
	const questions = 500 // in some the worker has refused before it is sent, in others not
	l, host := newLab(t), rig.Namespace(t)
	args := arguments("tcp", netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"))
	must(t, host.Do(func() error {
		l.run(run{args: args}).serve(t)
		lists, err := worker.Ask[worker.List]("list")
		if err != nil || len(lists) != 1 || len(lists[0].Ports) != 1 {
			t.Errorf("root is answered %v, %v; want one port", lists, err)
		}
		as(t, another, func() {
			for range questions {
				if lists, err = worker.Ask[worker.List]("list"); err != nil || len(lists) != 0 {
					t.Fatalf("another user is answered %v, %v; want nothing", lists, err)
				}
			}
		})
		return nil
	}))
}

// TestRequestTooLong: what does not go into a message is no worker's.
func TestRequestTooLong(t *testing.T) {
	long := strings.Repeat("x", 120_000) // a string of the environment has 128 KiB at most; a socket's buffer, 208 by default
	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	p := l.run(run{args: arguments("tcp", frontend, echo(t, "tcp", ours())),
		env: []string{"PORTSPLICE_A=" + long, "PORTSPLICE_B=" + long}}).serve(t)
	until(t, "a line says why", func() bool { return len(p.log()) == 3 }) // two are of the unknown variables
	const want = "portsplice: the port is served without a worker: the arguments and variables are "
	if log := strings.Join(p.log(), ""); !p.alone(t) || !strings.Contains(log, want) {
		t.Errorf("the log is %q, want %q", log, want)
	}
	exchange(t, dial(t, "tcp", frontend), "hello")
	p.signalled(t, syscall.SIGTERM)
}
