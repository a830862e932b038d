package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portsplice/portsplice/internal/listener"
)

// Ports are published ports as a section of the file names them: "443/tcp", on any address, "127.0.0.1:53/udp" or
// "[::]:5000-5099/tcp".
type Ports struct {
	Protocol    listener.Protocol
	Addr        netip.Addr // of the host; the zero value: any
	First, Last uint16
}

// ParsePorts reads the name of ports. Its errors do not repeat the name.
func ParsePorts(name string) (p Ports, err error) {
	where, protocol, found := strings.Cut(name, "/")
	if p.Protocol = listener.Protocol(protocol); !found {
		return Ports{}, errors.New(`the protocol is missing, as in "443/tcp"`)
	} else if uses[p.Protocol] == nil {
		return Ports{}, fmt.Errorf("unknown protocol %q (tcp, udp and sctp are known)", protocol)
	}
	span := where
	if _, err := hostAddr(where); err == nil {
		return Ports{}, fmt.Errorf("the port is missing, as in %s:443", where)
	}
	if colon := strings.LastIndexByte(where, ':'); colon >= 0 {
		span = where[colon+1:]
		if p.Addr, err = hostAddr(where[:colon]); err != nil {
			return Ports{}, err
		}
	}
	first, last, isRange := strings.Cut(span, "-")
	if p.First, err = portNumber(first); err != nil {
		return Ports{}, err
	}
	if p.Last = p.First; isRange {
		if p.Last, err = portNumber(last); err != nil {
			return Ports{}, err
		}
	}
	if p.Last < p.First {
		return Ports{}, fmt.Errorf("the range %s ends before it begins", span)
	}
	return p, nil
}

// hostAddr reads an address before a colon, which is in brackets if it is of IPv6.
func hostAddr(text string) (netip.Addr, error) {
	inner, bracket := strings.CutPrefix(text, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil || bracket != closed || bracket && !addr.Is6():
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", text)
	case addr.Is6() && !bracket:
		return netip.Addr{}, fmt.Errorf("an IPv6 address is in brackets: [%s]", text)
	}
	return addr.Unmap(), nil
}

func portNumber(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port (1 to 65535)", text)
	}
	return uint16(n), nil
}

// Contain says whether the port that is published on frontend is one of them.
func (p Ports) Contain(protocol listener.Protocol, frontend netip.AddrPort) bool {
	return p.Protocol == protocol && p.First <= frontend.Port() && frontend.Port() <= p.Last &&
		(!p.Addr.IsValid() || p.Addr == frontend.Addr())
}

// meet says whether there are ports that both contain.
func (p Ports) meet(o Ports) bool {
	return p.Protocol == o.Protocol && p.First <= o.Last && o.First <= p.Last &&
		(p.Addr == o.Addr || !p.Addr.IsValid() || !o.Addr.IsValid())
}

// Pattern is how people name ports: as a section of the file does, or without a protocol, for all of them.
type Pattern []Ports

// ParsePattern reads a pattern. Its errors name it.
func ParsePattern(text string) (p Pattern, err error) {
	names := []string{text}
	if !strings.Contains(text, "/") {
		names = []string{text + "/tcp", text + "/udp", text + "/sctp"}
	}
	for _, name := range names {
		ports, err := ParsePorts(name)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", text, err)
		}
		p = append(p, ports)
	}
	return p, nil
}

// Contain says whether the port that is published on frontend is one of them.
func (p Pattern) Contain(protocol listener.Protocol, frontend netip.AddrPort) bool {
	return slices.ContainsFunc(p, func(ports Ports) bool { return ports.Contain(protocol, frontend) })
}
