package bpf

import (
	"encoding/binary"
	"math"
	"os"
	"runtime/debug"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// bit is one of a structure of the kernel. The zero value is none.
type bit struct {
	offset int16 // of its byte
	mask   uint8
}

// findFastOpenConnect is the bit of struct tcp_sock that TCP_FASTOPEN_CONNECT sets, if the kernel says where its fields are
// (CONFIG_DEBUG_INFO_BTF).
func findFastOpenConnect() bit {
	defer debug.FreeOSMemory() // 5 MB of the library's, for an index of all types
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return bit{} // and the library would look for it in files that this kernel's verifier does not have
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return bit{}
	}
	var tcp *btf.Struct
	if types.TypeByName("tcp_sock", &tcp) != nil {
		return bit{}
	}
	for _, m := range tcp.Members {
		if m.Name != "fastopen_connect" || m.BitfieldSize != 1 || m.Offset.Bytes() > math.MaxInt16 {
			continue
		}
		mask := uint8(1) << (m.Offset % 8)
		if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // there, the first bit is the highest
			mask = 1 << (7 - m.Offset%8)
		}
		return bit{int16(m.Offset / 8), mask}
	}
	return bit{}
}

// notDeferred lets sockets pass whose connect asks for a connection now. With TCP_FASTOPEN_CONNECT, and a cookie of the
// backend's address, the first byte would: it could come when the port has gone, and another container has the address.
func notDeferred(k kernel) asm.Instructions {
	if k.deferred == (bit{}) {
		return nil
	}
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, sock),
		asm.FnSkcToTcpSock.Call(),
		asm.JEq.Imm(asm.R0, 0, "forget"), // as the verifier wants it
		asm.LoadMem(asm.R2, asm.R0, k.deferred.offset, asm.Byte),
		asm.And.Imm(asm.R2, int32(k.deferred.mask)),
		asm.JNE.Imm(asm.R2, 0, "forget"),
	}
}
