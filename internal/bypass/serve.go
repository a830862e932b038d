package bypass

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Entry is a port that is bypassed.
type Entry interface {
	// Bypassed is how many connections have been begun without the proxy.
	Bypassed() uint64
	// Remove ends that for those that begin later.
	Remove() error
}

// Serve does what the worker at the other end says, until it has ended. Add has connects to a frontend go to a backend.
func Serve(conn *net.UnixConn, add func(frontend, backend netip.AddrPort) (Entry, error)) error {
	s := served{add: add, entries: make(map[uint64]Entry)}
	if _, err := conn.Write([]byte("ok")); err != nil {
		return err
	}
	for b := make([]byte, longest); ; {
		n, err := conn.Read(b)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		answer := "ok "
		if err == nil {
			var number uint64
			if number, err = s.do(string(b[:n])); err != nil {
				answer = refuse(err)
			} else {
				answer += strconv.FormatUint(number, 10)
			}
			_, err = conn.Write([]byte(answer))
		}
		if err != nil {
			return err
		}
	}
}

// Refuse tells the worker why nothing is to be had.
func Refuse(conn *net.UnixConn, reason error) error {
	_, err := conn.Write([]byte(refuse(reason)))
	return err
}

// served is what the worker has had added.
type served struct {
	add     func(frontend, backend netip.AddrPort) (Entry, error)
	entries map[uint64]Entry
	last    uint64
}

func (s *served) do(request string) (number uint64, err error) {
	words := strings.Split(request, " ")
	if words[0] == "add" && len(words) == 3 {
		return s.enter(words[1], words[2])
	}
	if len(words) == 2 {
		number, _ = strconv.ParseUint(words[1], 10, 64) // zero is nobody's
	}
	entry := s.entries[number]
	switch {
	case entry == nil:
	case words[0] == "count":
		return entry.Bypassed(), nil
	case words[0] == "remove":
		err = entry.Remove()
		delete(s.entries, number)
		return entry.Bypassed(), err
	}
	return 0, fmt.Errorf("not a request: %q", request)
}

func (s *served) enter(frontend, backend string) (number uint64, err error) {
	from, err := netip.ParseAddrPort(frontend)
	to, failed := netip.ParseAddrPort(backend)
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	entry, err := s.add(from, to)
	if err != nil {
		return 0, err
	}
	s.last++
	s.entries[s.last] = entry
	return s.last, nil
}
