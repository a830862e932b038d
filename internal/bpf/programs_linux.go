package bpf

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// hook is where a program is attached, and the program.
type hook struct {
	name    string
	attach  ebpf.AttachType
	program func(*maps, kernel) asm.Instructions
}

var hooks = []hook{
	// What answers for a connection is there before any is made.
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername, getpeername4},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername, getpeername6},
	{"getsockname4", ebpf.AttachCgroupInet4GetSockname, getsockname4},
	{"getsockname6", ebpf.AttachCgroupInet6GetSockname, getsockname6},
	{"connect4", ebpf.AttachCGroupInet4Connect, connect4},
	{"connect6", ebpf.AttachCGroupInet6Connect, connect6},
}

// license is what the kernel is told of the programs. It shows its structures only to those under the GPL
// (check_ptr_to_btf_access in kernel/bpf/verifier.c), under which those of this package are offered, too:
// Apache-2.0 OR GPL-2.0-only.
const license = "GPL"

// Fields of struct bpf_sock_addr (include/uapi/linux/bpf.h).
const (
	ctxIP4      = 4
	ctxIP6      = 8
	ctxPort     = 24
	ctxProtocol = 36
	ctxSock     = 64
)

// Fields of struct bpf_sock.
const (
	sockDevice  = 0
	sockMark    = 16
	sockIP4     = 24
	sockIP6     = 28
	sockDstPort = 48
)

// The programs' stack: a portKey of what was asked, and one of the same port on all addresses.
const (
	asked    = -32
	wildcard = -64

	keyAddress = 8 // in both
	keyPort    = 24

	source        = -96 // a struct sockaddr_in6
	sourceAddress = 8
)

// Registers that calls leave alone.
const (
	ctx   = asm.R6
	sock  = asm.R7
	value = asm.R8 // a portValue
)

// word gives four bytes as the kernel loads them.
func word(b ...byte) int64 { return int64(int32(binary.NativeEndian.Uint32(b))) }

// The third word of an IPv4 address that is written as IPv6, and the fourth of loopback addresses.
var (
	mappedWord    = word(0, 0, 255, 255)
	loopback4Word = word(127, 0, 0, 1)
	loopback6Word = word(0, 0, 0, 1)
)

const loopbackNet = 127 // the first byte of 127.0.0.0/8

// part is which words of an address a program writes.
type part []int16

var (
	only = part{3}
	all  = part{0, 1, 2, 3}
)

// field is where the context has a word of the address.
func (p part) field(i int16) int16 {
	if len(p) == 1 {
		return ctxIP4
	}
	return ctxIP6 + 4*i
}

// connect4 is for IPv4 sockets.
func connect4(m *maps, k kernel) asm.Instructions {
	return join(
		begin(),
		asm.Instructions{
			asm.StoreImm(asm.RFP, asked+keyAddress+8, mappedWord, asm.Word),
			asm.StoreImm(asm.RFP, wildcard+keyAddress+8, mappedWord, asm.Word),
			asm.LoadMem(asm.R2, ctx, ctxIP4, asm.Word),
			asm.StoreMem(asm.RFP, asked+keyAddress+12, asm.R2, asm.Word),
			asm.JNE.Imm(asm.R2, 0, "lookup"),
			asm.StoreImm(asm.RFP, asked+keyAddress+12, loopback4Word, asm.Word), // as tcp_v4_connect has it
		},
		lookup(m, "free"),
		free(sockIP4, 1),
		notMPTCP(k),
		notDeferred(k),
		rewrite(m, only),
	)
}

// connect6 is for IPv6 sockets, which may ask for an IPv4 address.
func connect6(m *maps, k kernel) asm.Instructions {
	var copied asm.Instructions
	for _, i := range all {
		copied = append(copied,
			asm.LoadMem(asm.R2, ctx, ctxIP6+4*i, asm.Word),
			asm.StoreMem(asm.RFP, asked+keyAddress+4*i, asm.R2, asm.Word))
	}
	return join(
		begin(),
		copied,
		asm.Instructions{
			asm.LoadMem(asm.R2, asm.RFP, asked+keyAddress, asm.DWord),
			asm.JNE.Imm(asm.R2, 0, "lookup"),
			asm.LoadMem(asm.R2, asm.RFP, asked+keyAddress+8, asm.Word),
			asm.LoadMem(asm.R3, asm.RFP, asked+keyAddress+12, asm.Word),
			asm.JEq.Imm32(asm.R2, int32(mappedWord), "mapped"),
			asm.JNE.Imm32(asm.R2, 0, "lookup"),
			asm.JNE.Imm32(asm.R3, 0, "lookup"),
			asm.StoreImm(asm.RFP, asked+keyAddress+12, loopback6Word, asm.Word), // as tcp_v6_connect has it
			asm.Ja.Label("lookup"),
			asm.StoreImm(asm.RFP, wildcard+keyAddress+8, mappedWord, asm.Word).WithSymbol("mapped"),
			asm.JNE.Imm32(asm.R3, 0, "lookup"),
			asm.StoreImm(asm.RFP, asked+keyAddress+12, loopback4Word, asm.Word),
		},
		lookup(m, "again"),
		again(m),
		free(sockIP6, 4),
		notMPTCP(k),
		notDeferred(k),
		translate(),
		rewrite(m, all),
	)
}

// begin lets TCP sockets pass and fills both keys but for the addresses, which are zero.
func begin() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.LoadMem(asm.R2, ctx, ctxProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_TCP, "leave"),
		asm.LoadMem(sock, ctx, ctxSock, asm.DWord),

		asm.FnGetNetnsCookie.Call(), // of the context, which R1 still has
		asm.StoreMem(asm.RFP, asked, asm.R0, asm.DWord),
		asm.StoreMem(asm.RFP, wildcard, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R3, 0),
		asm.StoreMem(asm.RFP, asked+keyAddress, asm.R3, asm.DWord),
		asm.StoreMem(asm.RFP, asked+keyAddress+8, asm.R3, asm.DWord),
		asm.StoreMem(asm.RFP, wildcard+keyAddress, asm.R3, asm.DWord),
		asm.StoreMem(asm.RFP, wildcard+keyAddress+8, asm.R3, asm.DWord),
		asm.LoadMem(asm.R2, ctx, ctxPort, asm.Word),
		asm.StoreMem(asm.RFP, asked+keyPort, asm.R2, asm.Word),
		asm.StoreImm(asm.RFP, asked+keyPort+4, 0, asm.Word),
		asm.StoreMem(asm.RFP, wildcard+keyPort, asm.R2, asm.Word),
		asm.StoreImm(asm.RFP, wildcard+keyPort+4, 0, asm.Word),
	}
}

// lookup finds the port that was asked for: on that address, or on all that this namespace has.
func lookup(m *maps, found string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.ports.FD()).WithSymbol("lookup"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, asked),
		asm.FnMapLookupElem.Call(),
		asm.Mov.Reg(value, asm.R0),
		asm.JNE.Imm(asm.R0, 0, found),

		asm.LoadMapPtr(asm.R1, m.ports.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, wildcard),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "forget"),
		asm.Mov.Reg(value, asm.R0),

		asm.LoadMem(asm.R2, asm.RFP, wildcard+keyAddress+8, asm.Word),
		asm.JEq.Imm32(asm.R2, 0, "elsewhere"),
		asm.LoadMem(asm.R2, asm.RFP, asked+keyAddress+12, asm.Byte),
		asm.JEq.Imm(asm.R2, loopbackNet, found),

		asm.LoadMapPtr(asm.R1, m.addresses.FD()).WithSymbol("elsewhere"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, asked),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "forget"),
	}
}

// free lets those sockets pass on which nobody has set what chooses a route: interface, mark and so many words of a
// source.
func free(bound, words int16) asm.Instructions {
	is := asm.Instructions{
		asm.LoadMem(asm.R2, sock, sockDevice, asm.Word).WithSymbol("free"),
		asm.JNE.Imm(asm.R2, 0, "forget"),
		asm.LoadMem(asm.R2, sock, sockMark, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "forget"),
	}
	for i := range words {
		is = append(is, asm.LoadMem(asm.R2, sock, bound+4*i, asm.Word), asm.JNE.Imm(asm.R2, 0, "forget"))
	}
	return is
}

// notMPTCP lets sockets pass that are not MPTCP's: those have the TCP socket that connects, and another that the
// process has.
func notMPTCP(k kernel) asm.Instructions {
	if !k.mptcp {
		return nil
	}
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, sock),
		asm.FnSkcToMptcpSock.Call(),
		asm.JNE.Imm(asm.R0, 0, "forget"),
	}
}

// again takes the source from a socket that translate has bound, and whose connect then failed: it is the container's
// again. If the port has gone meanwhile, the socket has an IPv4 source, and the kernel answers EAFNOSUPPORT.
func again(m *maps) asm.Instructions {
	return join(
		asm.Instructions{
			asm.LoadMem(asm.R2, value, valueTranslated, asm.Word).WithSymbol("again"),
			asm.JEq.Imm(asm.R2, 0, "free"),
		},
		storage(m.asked, 0),
		asm.Instructions{asm.JEq.Imm(asm.R0, 0, "free")},
		bind(0),
	)
}

// translate makes a socket that has asked for an IPv6 address ready for a backend with an IPv4 one: it binds it to
// ::ffff:0.0.0.0, any address of IPv4. The kernel refuses that to a socket which is IPV6_V6ONLY, or has a port already.
func translate() asm.Instructions {
	return join(
		asm.Instructions{
			asm.LoadMem(asm.R2, value, valueTranslated, asm.Word),
			asm.JEq.Imm(asm.R2, 0, "rewrite"),
		},
		bind(mappedWord),
		asm.Instructions{asm.JNE.Imm(asm.R0, 0, "forget")},
	)
}

// bind binds the socket to an address whose third word is given, all others being zero, and to no port. R0 is zero if
// the kernel has done it.
func bind(third int64) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R3, 0),
		asm.StoreMem(asm.RFP, source, asm.R3, asm.DWord),
		asm.StoreImm(asm.RFP, source, unix.AF_INET6, asm.Half), // the host's byte order
		asm.StoreMem(asm.RFP, source+sourceAddress, asm.R3, asm.DWord),
		asm.StoreImm(asm.RFP, source+sourceAddress+8, third, asm.Word),
		asm.StoreMem(asm.RFP, source+sourceAddress+12, asm.R3, asm.Word),
		asm.StoreMem(asm.RFP, source+sourceAddress+16, asm.R3, asm.Word), // the zone
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, source),
		asm.Mov.Imm(asm.R3, unix.SizeofSockaddrInet6),
		asm.FnBind.Call(),
	}
}

// rewrite puts the backend in the place of what was asked, which the socket remembers; without memory for that the
// proxy serves it. What is asked for and not changed makes the socket forget.
func rewrite(m *maps, written part) asm.Instructions {
	is := storage(m.asked, unix.BPF_LOCAL_STORAGE_GET_F_CREATE)
	is[0] = is[0].WithSymbol("rewrite")
	is = append(is,
		asm.JEq.Imm(asm.R0, 0, "leave"),
		asm.LoadMem(asm.R2, asm.RFP, asked+keyPort, asm.Word),
		asm.StoreMem(asm.R0, askedPort, asm.R2, asm.Word),
		asm.LoadMem(asm.R2, value, valueGeneration, asm.DWord),
		asm.StoreMem(asm.R0, askedGeneration, asm.R2, asm.DWord),
	)
	for _, i := range all {
		is = append(is,
			asm.LoadMem(asm.R2, asm.RFP, asked+keyAddress+4*i, asm.Word),
			asm.StoreMem(asm.R0, 4*i, asm.R2, asm.Word))
	}
	for _, i := range written {
		is = append(is,
			asm.LoadMem(asm.R2, value, 4*i, asm.Word),
			asm.StoreMem(ctx, written.field(i), asm.R2, asm.Word))
	}
	return append(is,
		asm.LoadMem(asm.R2, value, valuePort, asm.Word),
		asm.StoreMem(ctx, ctxPort, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R2, 1),
		asm.AddAtomic.Mem(value, asm.R2, asm.DWord, valueBypassed),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("leave"),
		asm.Return(),

		asm.LoadMapPtr(asm.R1, m.asked.FD()).WithSymbol("forget"),
		asm.Mov.Reg(asm.R2, sock),
		asm.FnSkStorageDelete.Call(),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
	)
}

// storage gives what a map has of the socket in R0, or zero if that is nothing.
func storage(m *ebpf.Map, flags int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, sock),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, flags),
		asm.FnSkStorageGet.Call(),
	}
}

func join(parts ...asm.Instructions) (all asm.Instructions) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
