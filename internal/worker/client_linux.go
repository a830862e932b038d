package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Ask sends a question, of those that the package documentation has, to every worker of this thread's network namespace
// that answers this process's user, to all at once, and gives the answers. Workers that have ended meanwhile, or belong to
// others, are left out. The error is of those that do not answer; the answers of others come along.
func Ask[T Answer](question string) (answers []T, err error) {
	names, err := rendezvousNames()
	if err != nil {
		return nil, err
	}
	all, errs := make([]T, len(names)), make([]error, len(names))
	var asked sync.WaitGroup
	for i, name := range names {
		conn, failed := dial(name) // by this thread
		if failed != nil {
			errs[i] = failed
			continue
		}
		asked.Go(func() { errs[i] = ask(conn, question, &all[i]) })
	}
	asked.Wait()
	for i, failed := range errs {
		switch {
		case hasEnded(failed), errors.Is(failed, io.ErrUnexpectedEOF), errors.Is(failed, os.ErrPermission):
		case failed != nil:
			err = errors.Join(err, fmt.Errorf("worker %s: %w", names[i], failed))
		default:
			answers = append(answers, all[i])
		}
	}
	return answers, err
}

// Stream is what a worker tells of events.
type Stream struct {
	Name   string // of the worker's socket
	conn   *net.UnixConn
	buffer [piece]byte
}

// Trace has the workers of this thread's network namespace, that answer this process's user and are not known yet, tell of
// events at the ports of a pattern (config.ParsePattern), or of all ports if it is empty. The error is of those that do not; the streams of others come along.
// Their first event is "tracing", or an error if the worker does not know the question.
func Trace(pattern string, known func(name string) bool) (streams []*Stream, err error) {
	names, err := rendezvousNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if known(name) {
			continue
		}
		conn, failed := dial(name)
		if failed == nil {
			if _, failed = conn.Write([]byte(strings.TrimSpace("trace " + pattern))); failed != nil {
				_ = conn.Close() // nothing was heard
			}
		}
		switch {
		case hasEnded(failed):
		case failed != nil:
			err = errors.Join(err, fmt.Errorf("worker %s: %w", name, failed))
		default:
			streams = append(streams, &Stream{Name: name, conn: conn})
		}
	}
	return streams, err
}

// Next waits for an event. The error is io.EOF if the worker has ended or Close was called, os.ErrPermission if it does not
// answer this user, or what else it says.
func (s *Stream) Next() (e Event, err error) {
	n, err := s.conn.Read(s.buffer[:])
	line := s.buffer[:n]
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), hasEnded(err), err == nil && n == 0:
		return Event{}, io.EOF
	case err != nil:
		return Event{}, err
	case line[0] == decline[0]:
		return Event{}, fmt.Errorf("%w: %s", os.ErrPermission, line[1:])
	case line[0] == fail[0]: // an older one says so of what it does not know
		return Event{}, errors.New(strings.TrimSpace(string(line[len(fail):])))
	}
	err = json.Unmarshal(line, &e)
	return e, err
}

// Close ends the stream.
func (s *Stream) Close() error { return s.conn.Close() }

// hasEnded says whether the error is of a worker that ends, or refused before it was asked.
func hasEnded(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// rendezvousNames finds the names at which workers are asked (/proc/net/unix, see unix_seq_show in net/unix/af_unix.c).
func rendezvousNames() (names []string, err error) {
	file, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was read only
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		const listening = "00010000" // __SO_ACCEPTCON, the flags of a socket that listens
		fields := strings.Fields(lines.Text())
		if len(fields) == 8 && fields[3] == listening && strings.HasPrefix(fields[7], "@portsplice/") {
			names = append(names, fields[7])
		}
	}
	return names, lines.Err()
}

// dial connects to a worker of this thread's network namespace.
func dial(name string) (*net.UnixConn, error) {
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: name, Net: "unixpacket"})
}

// within is how long a worker has for an answer. That of a thousand ports takes 17 ms, and ten times that where others have
// the CPUs; a reload reads every port's options.
func within(question string) time.Duration {
	if question == "reload" || question == "options" {
		return 10 * time.Second
	}
	return time.Second
}

// ask takes the answer from a connection, and closes that.
func ask(conn *net.UnixConn, question string, answer any) error {
	defer func() { _ = conn.Close() }() // all was said
	wait := within(question)
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	err := exchange(conn, question, answer)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("process %d has not answered within %v: it is stopped, or the host too busy", processOf(conn), wait)
	}
	return err
}

// processOf is the process that listens at the other end; zero if this one may not know.
func processOf(conn *net.UnixConn) int32 {
	if peer, err := peerOf(conn); err == nil {
		return peer.Pid
	}
	return 0
}

// longestAnswer is more than a worker says of as many ports as there are, and longestAnswers bounds what all that are asked have said
// before they are done. Anybody may say to be a worker, or many.
const (
	longestAnswer  = 64 << 20
	longestAnswers = 4 * longestAnswer
)

// unfinished is how many bytes of answers are held that have not ended.
var unfinished atomic.Int64

func exchange(conn *net.UnixConn, question string, answer any) error {
	if _, err := conn.Write([]byte(question)); err != nil {
		return err
	}
	var line []byte
	defer func() { unfinished.Add(-int64(len(line))) }()
	for part := make([]byte, piece); ; {
		n, err := conn.Read(part)
		line = append(line, part[:n]...)
		all := unfinished.Add(int64(n))
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			break
		}
		if err != nil {
			return err
		}
		if len(line) > longestAnswer || all > longestAnswers {
			return fmt.Errorf("process %d goes on to answer after %d bytes, and all that were asked after %d", processOf(conn), len(line), all)
		}
	}
	if reason, refused := strings.CutPrefix(string(line), decline); refused {
		return fmt.Errorf("%w: %s", os.ErrPermission, reason)
	}
	if reason, failed := strings.CutPrefix(string(line), fail); failed {
		return fmt.Errorf("it does not know the question, as one of an older build, or refuses it: %s", strings.TrimSpace(reason))
	}
	if !bytes.HasSuffix(line, []byte("\n")) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(line, answer)
}
