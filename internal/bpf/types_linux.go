package bpf

import (
	"encoding/binary"
	"math"
	"os"

	"github.com/cilium/ebpf/btf"
)

// bit is one of a structure of the kernel. The zero value is none.
type bit struct {
	offset int16 // of its byte
	mask   uint8
}

// kernel is what the programs may ask of it. What it does not have is zero.
type kernel struct {
	mptcp    bool       // whether a socket is one of MPTCP
	deferred bit        // of struct tcp_sock: TCP_FASTOPEN_CONNECT is set
	state    bit        // of struct sock_common, with a mask of all bits
	destroy  btf.TypeID // of the function that ends a socket
}

// look reads what the kernel says of its own types (CONFIG_DEBUG_INFO_BTF).
func look() (k kernel) {
	k.mptcp = true // only to be tried
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return k // and the library would look for it in files that this kernel's verifier does not have
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return k
	}
	k.deferred = member(types, "tcp_sock", "fastopen_connect")
	k.state = member(types, "sock_common", "skc_state")
	var function *btf.Func
	if types.TypeByName("bpf_sock_destroy", &function) == nil {
		k.destroy, _ = types.TypeID(function) // it was found
	}
	return k
}

// member finds a bit or a byte of a structure.
func member(types *btf.Spec, structure, name string) bit {
	var s *btf.Struct
	if types.TypeByName(structure, &s) != nil {
		return bit{}
	}
	for _, m := range s.Members {
		switch {
		case m.Name != name || m.Offset/8 > math.MaxInt16:
		case m.BitfieldSize == 0:
			return bit{int16(m.Offset / 8), 0xff}
		case m.BitfieldSize == 1 && binary.NativeEndian.Uint16([]byte{0, 1}) == 1: // there, the first bit is the highest
			return bit{int16(m.Offset / 8), 1 << (7 - m.Offset%8)}
		case m.BitfieldSize == 1:
			return bit{int16(m.Offset / 8), 1 << (m.Offset % 8)}
		}
	}
	return bit{}
}
