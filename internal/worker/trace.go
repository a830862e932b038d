package worker

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Event is a line of the answer to "trace".
type Event struct {
	Time time.Time `json:"time"`

	// Event is "tracing", which comes first, "accepted", "connected" and "ended" of a connection, "failed" of what the log
	// has a line for, or "dropped": of events that whoever asked was too slow for.
	Event string `json:"event"`

	Port    string `json:"port,omitempty"`   // such as "0.0.0.0:443/tcp"
	Client  string `json:"client,omitempty"` // its address and port, where there is one
	Backend string `json:"backend,omitempty"`

	ConnectSeconds  float64 `json:"connect_seconds,omitempty"`  // from the accept to the backend's answer
	DurationSeconds float64 `json:"duration_seconds,omitempty"` // from the accept to the end
	ReceivedBytes   uint64  `json:"received_bytes,omitempty"`   // of the client, by the backend
	SentBytes       uint64  `json:"sent_bytes,omitempty"`       // to the client
	EndedBy         string  `json:"ended_by,omitempty"`         // client, backend or portsplice
	Reason          string  `json:"reason,omitempty"`

	Operation string `json:"operation,omitempty"` // of what has failed
	Error     string `json:"error,omitempty"`

	Dropped uint64   `json:"dropped,omitempty"` // events, since the last that came
	Worker  int      `json:"worker,omitempty"`  // its process, of "tracing"
	Ports   []string `json:"ports,omitempty"`   // that are traced; others may come
}

// Selector says which ports are meant. Its zero value means all.
type Selector struct {
	addr     netip.Addr // the zero value: any
	port     uint16     // zero: any
	protocol string     // empty: any
}

// ParseSelector reads [ADDRESS:]PORT[/PROTOCOL], of a port's host side. An empty text means all ports.
func ParseSelector(text string) (s Selector, err error) {
	if text == "" {
		return Selector{}, nil
	}
	where, protocol, named := strings.Cut(text, "/")
	if s.protocol = protocol; named && protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return Selector{}, fmt.Errorf("%q: unknown protocol %q (tcp, udp and sctp are known)", text, protocol)
	}
	if number, err := strconv.ParseUint(where, 10, 16); err == nil {
		s.port = uint16(number)
	} else if at, err := netip.ParseAddrPort(where); err == nil {
		s.addr, s.port = at.Addr().Unmap(), at.Port()
	}
	if s.port == 0 {
		return Selector{}, fmt.Errorf("%q: not a port, such as 443, 443/tcp or [::]:443/tcp", text)
	}
	return s, nil
}

func (s Selector) selects(protocol string, frontend netip.AddrPort) bool {
	return (!s.addr.IsValid() || s.addr == frontend.Addr()) && (s.port == 0 || s.port == frontend.Port()) &&
		(s.protocol == "" || s.protocol == protocol)
}
