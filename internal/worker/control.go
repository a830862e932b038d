package worker

import (
	"fmt"
	"time"

	"github.com/portsplice/portsplice/internal/config"
)

// control is the version of the answers.
const control = 1

// Answer is what a question is answered with.
type Answer interface {
	List | Totals | Clients | Options | Reload
}

// The states of a port.
const (
	Serving  = "serving"
	Draining = "draining" // its address is free; connections that it had live on
)

// Port is a port as List tells of it.
type Port struct {
	Protocol string            `json:"protocol"`
	Frontend string            `json:"frontend"`
	Backend  string            `json:"backend"`
	Shim     int               `json:"shim"`   // its process
	Since    time.Time         `json:"since"`  // this worker serves it
	State    string            `json:"state"`  // serving or draining; empty: of a worker that is older than this
	Engine   string            `json:"engine"` // what moves the bytes
	Bypass   string            `json:"bypass"` // of local clients: off, on, or why it cannot be
	Counters map[string]uint64 `json:"counters"`

	// Histograms are of "metrics" alone: "connection-duration", from the accept to the end of what has ended, and
	// "connect-duration", from the accept to the backend's answer. There are none before the first connection.
	Histograms map[string]Histogram `json:"histograms,omitempty"`
}

// Histogram counts seconds in exponential buckets, as Prometheus' native histograms do: Buckets[i] has what is more than
// 2^((i-1)/2^Schema) and no more than 2^(i/2^Schema), and Zero what is no more than histogram.ZeroThreshold.
type Histogram struct {
	Schema  int            `json:"schema"`
	Zero    uint64         `json:"zero"`
	Count   uint64         `json:"count"`
	Sum     float64        `json:"sum"`
	Buckets map[int]uint64 `json:"buckets"`
}

// List is the answer to "list", and to "metrics", which has histograms, too.
type List struct {
	Version int    `json:"version"`
	Worker  int    `json:"worker"` // its process
	Program string `json:"program"`
	Ports   []Port `json:"ports"`
}

// Totals is the answer to "stats".
type Totals struct {
	Version  int               `json:"version"`
	Worker   int               `json:"worker"`
	Program  string            `json:"program"` // its version
	Since    time.Time         `json:"since"`
	Ports    int               `json:"ports"`
	Counters map[string]uint64 `json:"counters"` // summed over the ports that there are
}

// Reload is the answer to "reload".
type Reload struct {
	Version int        `json:"version"`
	Worker  int        `json:"worker"`
	Errors  []string   `json:"errors,omitempty"` // why nothing has changed
	Served  int        `json:"served"`           // ports, changed or not
	Ports   []Reloaded `json:"ports"`            // for which something is to change
}

// Reloaded is what a reload has brought a port.
type Reloaded struct {
	Protocol string          `json:"protocol"`
	Frontend string          `json:"frontend"`
	Changes  []config.Change `json:"changes"` // live: has changed; else the port goes on with what it has
}

// Tell says what became of a change, to people.
func Tell(c config.Change) string {
	switch {
	case c.Live:
		return fmt.Sprintf("%s is %s now, and was %s", c.Option, Shown(c.To), Shown(c.From))
	case c.Reason != "":
		return fmt.Sprintf("%s stays %s: %s", c.Option, Shown(c.From), c.Reason)
	default:
		return fmt.Sprintf("%s stays %s: %s is for when the port is published anew", c.Option, Shown(c.From), Shown(c.To))
	}
}

// Shown is a value as people see it.
func Shown(value string) string {
	if value == "" {
		return `""`
	}
	return value
}

// Options is the answer to "options".
type Options struct {
	Version int           `json:"version"`
	Worker  int           `json:"worker"`
	Ports   []PortOptions `json:"ports"`
}

// PortOptions are what a port has been told, as it would be read now.
type PortOptions struct {
	Protocol string   `json:"protocol"`
	Frontend string   `json:"frontend"`
	Options  []Option `json:"options"`
	Error    string   `json:"error,omitempty"` // why they cannot be read; the port goes on with what it has
}

// Option is one of them.
type Option struct {
	config.Setting
	InForce *string `json:"in_force,omitempty"` // the value that the port goes on with, if it is another
}

// MaxClients is how many clients of a port a worker tells of at the most.
const MaxClients = 100

// Clients is the answer to "clients MOST PROTOCOL FRONTEND": the clients of the port with the most bytes, MOST of them at
// the most. The address may be that of several ports, of which one serves and others drain, or of none.
type Clients struct {
	Version int           `json:"version"`
	Worker  int           `json:"worker"` // its process
	Ports   []PortClients `json:"ports"`
}

// PortClients are the clients of a port, the busiest first.
type PortClients struct {
	Shim    int      `json:"shim"` // the port's
	Clients []Client `json:"clients"`
}

// Client is a connection through a port.
type Client struct {
	Address  string  `json:"client"`
	Age      float64 `json:"age"` // seconds since it was accepted
	BytesIn  uint64  `json:"bytes-in"`
	BytesOut uint64  `json:"bytes-out"`
}

// DialErrors are how often the backend could not be reached, by reason: refused, timeout, unreachable, exhausted or other.
func (p Port) DialErrors() map[string]uint64 {
	c := p.Counters
	known := map[string]uint64{
		"refused":     c["dial-refused"],
		"timeout":     c["dial-timeouts"],
		"unreachable": c["dial-unreachable"],
		"exhausted":   c["dial-exhausted"],
	}
	rest := c["dial-errors"]
	for _, n := range known {
		rest -= min(n, rest) // counters are read one after the other
	}
	known["other"] = rest
	return known
}
