package worker

import "time"

// Event is a line of the answer to "trace".
type Event struct {
	Time time.Time `json:"time"`

	// Event is "tracing", which comes first, "accepted", "connected" and "ended" of a connection, "failed" of what the log
	// has a line for, or "dropped": of events that whoever asked was too slow for.
	Event string `json:"event"`

	Port      string `json:"port,omitempty"`      // such as "0.0.0.0:443/tcp"
	Namespace string `json:"namespace,omitempty"` // of the network, if not that of who has asked, who sets it
	Client    string `json:"client,omitempty"`    // its address and port, where there is one
	Backend   string `json:"backend,omitempty"`

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
