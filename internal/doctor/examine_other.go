//go:build !linux

package doctor

import "context"

// Examine says what there is not: dockerd starts proxies on Linux only.
func Examine(context.Context, string) []Finding {
	return []Finding{
		{"dockerd", Note, "starts its proxies on Linux only: portsplice cannot take docker-proxy's place here",
			"Docker Desktop's dockerd is in a virtual machine that portsplicectl does not reach; a Docker host of Linux is needed"},
		{"engine", Note, "portsplice serves TCP and UDP ports from a shell here, by its portable engine: no splice, worker, SCTP or " +
			"local bypass, and UDP loses DSCP and ECN", ""},
	}
}
