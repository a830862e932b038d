package bpf

import "github.com/cilium/ebpf/asm"

// The programs that answer for a connection which was bypassed.

// remembered lets sockets pass that have been bypassed.
func remembered(m *maps) asm.Instructions {
	return join(
		asm.Instructions{
			asm.Mov.Reg(ctx, asm.R1),
			asm.LoadMem(sock, ctx, ctxSock, asm.DWord),
		},
		storage(m.asked, 0),
		asm.Instructions{asm.JEq.Imm(asm.R0, 0, "leave")},
	)
}

func getpeername4(m *maps, _ kernel) asm.Instructions { return getpeername(m, only) }
func getpeername6(m *maps, _ kernel) asm.Instructions { return getpeername(m, all) }

func getpeername(m *maps, written part) asm.Instructions {
	is := remembered(m)
	for _, i := range written {
		is = append(is,
			asm.LoadMem(asm.R2, asm.R0, 4*i, asm.Word),
			asm.StoreMem(ctx, written.field(i), asm.R2, asm.Word))
	}
	return append(is,
		asm.LoadMem(asm.R2, asm.R0, askedPort, asm.Word),
		asm.StoreMem(ctx, ctxPort, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("leave"),
		asm.Return(),
	)
}

// connected lets sockets pass that are so, or have been: one that was disconnected may have been bound since.
func connected() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, sock, sockDstPort, asm.Half),
		asm.JEq.Imm(asm.R2, 0, "leave"),
	}
}

func getsockname4(m *maps, _ kernel) asm.Instructions {
	return join(remembered(m), connected(), asm.Instructions{
		asm.LoadMem(asm.R2, asm.R0, 12, asm.Byte),
		asm.JNE.Imm(asm.R2, loopbackNet, "leave"),
		asm.Mov.Imm(asm.R2, int32(loopback4Word)),
		asm.StoreMem(ctx, ctxIP4, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("leave"),
		asm.Return(),
	})
}

func getsockname6(m *maps, _ kernel) asm.Instructions {
	is := join(remembered(m), connected(), asm.Instructions{
		asm.LoadMem(asm.R2, asm.R0, 0, asm.Word),
		asm.JNE.Imm32(asm.R2, 0, "leave"),
		asm.LoadMem(asm.R2, asm.R0, 4, asm.Word),
		asm.JNE.Imm32(asm.R2, 0, "leave"),
		asm.LoadMem(asm.R3, asm.R0, 8, asm.Word),
		asm.JEq.Imm32(asm.R3, int32(mappedWord), "mapped"),
		asm.JNE.Imm32(asm.R3, 0, "leave"),
		asm.LoadMem(asm.R2, asm.R0, 12, asm.Word),
		asm.JEq.Imm32(asm.R2, int32(loopback6Word), "write"),
		asm.Ja.Label("leave"),
		asm.LoadMem(asm.R2, asm.R0, 12, asm.Byte).WithSymbol("mapped"),
		asm.JNE.Imm(asm.R2, loopbackNet, "leave"),
		asm.Mov.Imm(asm.R2, int32(loopback4Word)),
		asm.StoreMem(ctx, ctxIP6+12, asm.R2, asm.Word).WithSymbol("write"),
		asm.StoreMem(ctx, ctxIP6+8, asm.R3, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.StoreMem(ctx, ctxIP6+4, asm.R2, asm.Word),
		asm.StoreMem(ctx, ctxIP6, asm.R2, asm.Word),
	})
	return append(is,
		asm.Mov.Imm(asm.R0, 1).WithSymbol("leave"),
		asm.Return(),
	)
}
