//go:build !linux

package udp

// controlSpace is none: replies leave from the address the kernel chooses.
const controlSpace = 0

func parseLocal([]byte) local { return local{} }

func (local) control() []byte { return nil }
