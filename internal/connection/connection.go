// Package connection says what the engines tell of the connections that they relay: when one begins, when its backend is
// connected, how much it has carried and who ended it. TCP, SCTP and UDP tell the same, so that one log, one trace and
// one histogram do for all.
package connection

import (
	"errors"
	"net/netip"
	"syscall"
	"time"
)

// Phase is where a connection has come to. Each is told once at most, in this order, and Ended of every connection.
type Phase uint8

// The phases. A UDP flow tells no Connected, as nobody knows.
const (
	Accepted  Phase = iota // the client is there, and the backend is about to be dialed
	Connected              // the backend is there
	Ended
)

// Side is who did something.
type Side string

// The sides.
const (
	Client  Side = "client"
	Backend Side = "backend"
	Proxy   Side = "portsplice"
)

// Reason is why a connection has ended.
type Reason string

// The reasons, each with who may have it.
const (
	Closed        Reason = "closed"       // the side whose end of file came first; both have ended in order
	Reset         Reason = "reset"        // the side that reset the connection, or aborted the association
	Timeout       Reason = "timeout"      // the side that has vanished: no acknowledgement, no answer to probes
	Failed        Reason = "failed"       // the side whose connection failed otherwise; or the proxy, for want of something
	DialFailed    Reason = "dial failed"  // the backend, which refused, was out of reach or did not answer in time
	HeaderRefused Reason = "proxy header" // the client, which was to begin with a PROXY header and did not
	SourceRefused Reason = "transparent"  // the proxy: the backend could not be shown the client's address
	Stopped       Reason = "stopped"      // the proxy: the port was to end, and its connections with it
	Idle          Reason = "idle"         // the proxy: a UDP flow was silent for its timeout
	Evicted       Reason = "evicted"      // the proxy: a UDP flow made room for another
)

// Connection is what is told of one.
type Connection struct {
	Phase           Phase
	Client, Backend netip.AddrPort // the client is who a PROXY header says, once that has come
	Dial            time.Duration  // from the accept to the backend's answer; zero before that
	Lasted          time.Duration  // since the accept

	// FromClient and FromBackend are bytes that the other side's socket has taken: what was sent and lost on its way
	// through the proxy is not in it, and a PROXY header that the backend is sent is.
	FromClient, FromBackend uint64

	End // of one that has ended
}

// End is who ended a connection, and why.
type End struct {
	By     Side
	Reason Reason
	Err    error // the cause, where the reason does not say all
}

// Failure is the end of a connection of which the leg of a side has failed. A nil error stands for a reset.
func Failure(of Side, err error) End {
	switch {
	case err == nil, errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return End{By: of, Reason: Reset}
	case errors.Is(err, syscall.ETIMEDOUT):
		return End{By: of, Reason: Timeout, Err: err}
	}
	return End{By: of, Reason: Failed, Err: err}
}
