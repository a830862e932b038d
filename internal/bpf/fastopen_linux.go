package bpf

import "github.com/cilium/ebpf/asm"

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
