// Package workers finds the workers of a host, in whichever network namespace they are, and asks them.
//
// A worker is met at an abstract unix socket, which exists in its own network namespace only (package worker). That of
// this process is looked at for any user. Root also sees the namespaces of the other processes, as where a rootless
// dockerd runs, and asks inside each of them. The user of a rootless dockerd is root where that has its ports (EnterRootless).
package workers

import "github.com/portsplice/portsplice/internal/worker"

// Answer is what a worker has answered.
type Answer[T any] struct {
	Namespace string // its network namespace as /proc names it, "net:[4026532281]"; empty: that of this process
	Told      T
}

// Stream is what a worker tells of events.
type Stream struct {
	Namespace string // as that of an Answer
	*worker.Stream
}
