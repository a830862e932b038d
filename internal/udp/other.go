//go:build !linux

package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
)

// fromICMP says whether an error may be the answer to an earlier datagram. Which those are is the system's business, so
// each is taken for one.
func fromICMP(error) bool { return true }

// Port is for Linux.
type Port struct{}

// Supported tells that New cannot work: the error wraps errors.ErrUnsupported.
func Supported() error {
	return fmt.Errorf("udp: event loop: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// New fails with an error that wraps errors.ErrUnsupported.
func New(*eventloop.Group, int, netip.AddrPort, Options) (*Port, error) { return nil, Supported() }

// Close is never called.
func (*Port) Close() error { return nil }

// Backend is none.
func (*Port) Backend() netip.AddrPort { return netip.AddrPort{} }

// SetBackend is never called.
func (*Port) SetBackend(netip.AddrPort) error { return Supported() }

// SetOptions is never called.
func (*Port) SetOptions(Options) error { return Supported() }

// Stats is never called.
func (*Port) Stats() Stats { return Stats{} }

// Clients gives none.
func (*Port) Clients(int) []connection.Traffic { return nil }

// controlSpace is none: replies leave from the address the kernel chooses.
const controlSpace = 0

// ancillary is what the kernel tells with a datagram: nothing here.
type ancillary struct {
	asked   local
	tos     uint8
	lost    uint32
	counted bool
}

func parseControl([]byte) ancillary { return ancillary{} }

func (local) appendControl(b []byte) []byte { return b }

// blockControl is none.
const blockControl = 0

// appendTOS is not called.
func appendTOS(b []byte, _ bool, _ uint8) []byte { return b }

// readyPortable has nothing to do: a frontend is taken as it is.
func readyPortable(*net.UDPConn) error { return nil }

// lostByConn does not know how many datagrams a socket had no room for.
func lostByConn(*net.UDPConn) (lost uint32, counted bool) { return 0, false }
