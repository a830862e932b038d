package worker

import "time"

// control is the version of List and Totals.
const control = 1

// Port is a port as List tells of it.
type Port struct {
	Protocol string            `json:"protocol"`
	Frontend string            `json:"frontend"`
	Backend  string            `json:"backend"`
	Shim     int               `json:"shim"`   // its process
	Since    time.Time         `json:"since"`  // this worker serves it
	Engine   string            `json:"engine"` // what moves the bytes
	Bypass   string            `json:"bypass"` // of local clients: off, on, or why it cannot be
	Counters map[string]uint64 `json:"counters"`
}

// List is the answer to "list".
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
