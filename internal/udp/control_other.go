//go:build !linux

package udp

// controlSpace is none: replies leave from the address the kernel chooses.
const controlSpace = 0

// ancillary is what the kernel tells with a datagram: nothing here.
type ancillary struct {
	asked   local
	lost    uint32
	counted bool
}

func parseControl([]byte) ancillary { return ancillary{} }

func (local) control() []byte { return nil }
