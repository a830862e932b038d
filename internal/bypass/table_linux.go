package bypass

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Program is the name of what Start starts. It lies beside the program that starts it.
const Program = "portsplice-bypass"

// patience is how long an answer may take. It is a system call or two, and in the beginning the kernel's check of the
// programs.
const patience = 5 * time.Second

// Table is the ports of this process that local clients reach without it.
type Table struct {
	ended   chan struct{} // is closed when the process has ended
	process *os.Process

	mu     sync.Mutex // over a request and its answer
	conn   *net.UnixConn
	buffer [longest]byte
}

// Start starts the program, of the version of this one, and waits until it is ready. It ends with this process, or by
// Close. The error says what is missing; it is errors.ErrUnsupported or os.ErrPermission where that will not change.
func Start(version string) (*Table, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	conn, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	t := &Table{ended: make(chan struct{}), conn: conn}
	if err == nil {
		program := filepath.Join(filepath.Dir(self), Program)
		t.process, err = os.StartProcess(program, []string{program, version},
			&os.ProcAttr{Dir: "/", Files: []*os.File{null, null, null, theirs}})
		_ = null.Close() // it was never read
	}
	_ = theirs.Close() // the process has its own
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go func() {
		_, _ = t.process.Wait() // however it has ended
		close(t.ended)
	}()
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.hear(); err != nil {
		return nil, errors.Join(err, t.end())
	}
	return t, nil
}

// pair is a connection and its other end, which a process is to be given.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), Program), os.NewFile(uintptr(fds[1]), Program)
	conn, err := net.FileConn(ours) // a duplicate
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// Ended says whether the program has ended, so that nothing is bypassed any more.
func (t *Table) Ended() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// Wait waits until the program has ended.
func (t *Table) Wait() { <-t.ended }

// Close ends it: connects come to the proxy again.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end()
}

// end waits until the program has. What it does not do when it reads the end of the socket, it does when it is killed.
func (t *Table) end() error {
	err := t.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	select {
	case <-t.ended:
	case <-time.After(patience):
		_ = t.process.Kill() // it may end this moment
		<-t.ended
	}
	return err
}

// Port is a port in the table.
type Port struct {
	table  *Table
	number string

	mu      sync.Mutex
	last    uint64 // how many connections were counted when it was asked last
	removed bool
}

// Add has TCP connects to frontend become connects to backend. An error says why this port cannot be bypassed.
func (t *Table) Add(frontend, backend netip.AddrPort) (*Port, error) {
	number, err := t.ask(fmt.Sprintf("add %v %v", frontend, backend))
	if err != nil {
		return nil, err
	}
	return &Port{table: t, number: number}, nil
}

// Table is where the port is.
func (p *Port) Table() *Table { return p.table }

// Bypassed is how many connections have been begun without the proxy.
func (p *Port) Bypassed() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.removed {
		_ = p.update("count") // if it has ended there will be no more
	}
	return p.last
}

// Remove takes the port out. No connect that begins afterwards is bypassed to its backend.
func (p *Port) Remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return nil
	}
	p.removed = true
	err := p.update("remove")
	if errors.Is(err, errEnded) {
		return nil // and with it all that it had in the kernel
	}
	return err
}

func (p *Port) update(request string) error {
	answer, err := p.table.ask(request + " " + p.number)
	if err != nil {
		return err
	}
	p.last, err = strconv.ParseUint(answer, 10, 64)
	return err
}

// errEnded is why a request has no answer.
var errEnded = errors.New(Program + " has ended")

// ask gives the answer to a request. If there is none, the program has ended.
func (t *Table) ask(request string) (answer string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err = t.conn.Write([]byte(request)); err == nil {
		answer, err = t.hear()
	}
	if err == nil || errors.As(err, new(refusal)) {
		return answer, err
	}
	return "", errors.Join(errEnded, err, t.end())
}

// hear waits for a message.
func (t *Table) hear() (answer string, err error) {
	if err := t.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	n, err := t.conn.Read(t.buffer[:])
	if err != nil {
		return "", fmt.Errorf("%s: %w", Program, err)
	}
	return accepted(string(t.buffer[:n]))
}
