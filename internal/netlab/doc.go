// Package netlab makes the networks that tests and benchmarks run in: namespaces without uplink, joined by veth
// cables. It needs root.
package netlab
