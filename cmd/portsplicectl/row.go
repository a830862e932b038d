package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/worker"
	"github.com/portsplice/portsplice/internal/workers"
)

// row is a port as ps shows it. --format has its fields by their names here, and JSON by those of the tags.
type row struct {
	Port        string            `json:"port"`      // Published and Protocol: 0.0.0.0:443/tcp
	Protocol    string            `json:"protocol"`  // tcp, udp or sctp
	Published   string            `json:"published"` // the address on the host
	Container   string            `json:"container"` // the address in the container
	Name        string            `json:"name"`      // of the container; empty: not known
	State       string            `json:"state"`     // serving or draining
	Engine      string            `json:"engine"`    // what moves the bytes
	Since       time.Time         `json:"since"`     // this worker serves it
	Age         age               `json:"age_seconds"`
	Connections count             `json:"connections"`       // there are now; of UDP, flows
	Total       count             `json:"connections_total"` // that there ever were
	Received    size              `json:"received_bytes"`    // by the container, from clients
	Sent        size              `json:"sent_bytes"`        // by the container, to clients
	Rate        rate              `json:"rate_bytes_per_second"`
	Spliced     share             `json:"spliced_share"` // of the bytes, moved by splice(2)
	Bypassed    bypassed          `json:"bypassed_connections"`
	Bypass      string            `json:"bypass"`  // of local clients: off, on, or why it cannot be
	Dropped     count             `json:"dropped"` // UDP datagrams, or SCTP messages
	Errors      errorCounts       `json:"errors"`
	Worker      int               `json:"worker"`    // its process
	Shim        int               `json:"shim"`      // its process
	Namespace   string            `json:"namespace"` // of the network, if not this one
	Counters    map[string]uint64 `json:"counters"`
	Clients     []worker.Client   `json:"clients,omitempty"` // of a port that was asked for
}

// headers are the heads of the fields in a table.
var headers = map[string]string{
	"Port": "PORT", "Protocol": "PROTOCOL", "Published": "PUBLISHED", "Container": "CONTAINER", "Name": "NAME",
	"State": "STATE", "Engine": "ENGINE", "Since": "SINCE", "Age": "AGE", "Connections": "CONNECTIONS", "Total": "TOTAL",
	"Received": "RECEIVED", "Sent": "SENT", "Rate": "RATE", "Spliced": "SPLICED", "Bypassed": "BYPASSED",
	"Bypass": "BYPASS", "Dropped": "DROPPED", "Errors": "ERRORS", "Worker": "WORKER", "Shim": "SHIM",
	"Namespace": "NAMESPACE", "Counters": "COUNTERS", "Clients": "CLIENTS",
}

// key tells ports apart, from one look to the next.
type key struct {
	namespace string
	worker    int
	shim      int
	port      string
}

func (r *row) key() key { return key{r.Namespace, r.Worker, r.Shim, r.Port} }

// rowsOf makes rows of what workers have answered, this network namespace's first.
func rowsOf(answers []workers.Answer[worker.List], now time.Time) []*row {
	rows := []*row{}
	for _, a := range answers {
		for _, p := range a.Told.Ports {
			r := rowOf(p, now)
			r.Worker, r.Namespace = a.Told.Worker, a.Namespace
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Protocol, b.Protocol),
			addressOf(a.Published).Compare(addressOf(b.Published)), a.Since.Compare(b.Since))
	})
	return rows
}

func rowOf(p worker.Port, now time.Time) *row {
	c := p.Counters
	r := &row{
		Port: p.Frontend + "/" + p.Protocol, Protocol: p.Protocol, Published: p.Frontend, Container: p.Backend,
		State: cmp.Or(p.State, worker.Serving), Engine: p.Engine, Since: p.Since, Age: age(now.Sub(p.Since)),
		Connections: count(c["active"]), Total: count(c["accepted"]),
		Received: size(c["bytes-in"]), Sent: size(c["bytes-out"]),
		Bypassed: bypassed{p.Bypass, c["bypassed"]}, Bypass: p.Bypass,
		Errors: errorsOf(p), Shim: p.Shim, Counters: c,
	}
	switch p.Protocol {
	case "udp":
		r.Connections, r.Total = count(c["flows"]), count(c["flows-total"])
		r.Dropped = count(c["dropped"] + c["kernel-dropped"])
	case "sctp":
		r.Dropped = count(c["undelivered"])
	default:
		if sum := c["spliced"] + c["copied"]; sum > 0 {
			r.Spliced = share{known{float64(c["spliced"]) / float64(sum), true}}
		}
	}
	return r
}

// addressOf is the address of a row, which a worker has written.
func addressOf(published string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(published) // a bad one comes first
	return a
}

// errorCounts are how many errors there were, by kind.
type errorCounts map[string]uint64

func errorsOf(p worker.Port) errorCounts {
	e := errorCounts{}
	all := p.DialErrors()
	all["accept"], all["header"] = p.Counters["accept-errors"], p.Counters["headers-refused"]
	all["source"] = p.Counters["source-refused"]
	if p.Protocol == "udp" {
		all["refused"] = p.Counters["refused"]
	}
	for kind, n := range all {
		if n > 0 {
			e[kind] = n
		}
	}
	return e
}

// String gives the most frequent first: "refused 12, timeout 3".
func (e errorCounts) String() string {
	var kinds []string
	for kind := range e {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Or(cmp.Compare(e[b], e[a]), cmp.Compare(a, b)) })
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%s %v", kind, count(e[kind]))
	}
	if len(kinds) == 0 {
		return "-"
	}
	return strings.Join(kinds, ", ")
}

// bypassed is how many local clients have reached the backend without the proxy, or why none does.
type bypassed struct {
	state string
	count uint64
}

func (b bypassed) String() string {
	switch b.state {
	case "on":
		return count(b.count).String()
	case "off", "": // an empty one is of a worker that is older
		return "-"
	default:
		return "no: " + b.state
	}
}

// MarshalJSON gives the number, or null where there is no bypass.
func (b bypassed) MarshalJSON() ([]byte, error) {
	return known{float64(b.count), b.state == "on"}.MarshalJSON()
}

// pattern is what names ports on the command line.
type pattern struct {
	text  string
	ports config.Pattern
}

func parsePattern(text string) (pattern, error) {
	ports, err := config.ParsePattern(text)
	return pattern{text, ports}, err
}

func (p pattern) matches(r *row) bool {
	return p.ports.Contain(listener.Protocol(r.Protocol), addressOf(r.Published))
}

// selected are the rows that one of the patterns names; all of them if there is none. A pattern that names none is an
// error.
func selected(rows []*row, patterns []pattern) ([]*row, error) {
	for _, p := range patterns {
		if !slices.ContainsFunc(rows, p.matches) {
			return nil, fmt.Errorf("port %q: no worker serves it", p.text)
		}
	}
	if len(patterns) == 0 {
		return rows, nil
	}
	return slices.DeleteFunc(rows, func(r *row) bool {
		return !slices.ContainsFunc(patterns, func(p pattern) bool { return p.matches(r) })
	}), nil
}
