// Package clients has tests alone: programs that people run, a DNS server and QUIC, talk through the proxy.
//
// It is a module of its own, so that the proxy does not depend on what they need. "make test-udp" runs them.
package clients
