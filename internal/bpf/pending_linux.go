package bpf

import (
	"errors"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// pending ends connects that have no answer yet when their port goes: the kernel would go on asking at an address that may
// become another container's.
type pending struct {
	iterator *link.Iter
	gone     *ebpf.Map // the generation of the port that goes
}

// Fields of struct bpf_iter__tcp.
const iterSock = 8

const synSent = 2 // TCP_SYN_SENT (include/net/tcp_states.h)

// newPending loads a program that the kernel runs for each TCP socket of a namespace when it is asked to (an iterator), with
// the socket locked. It takes CAP_PERFMON and, for bpf_sock_destroy, Linux 6.5.
func newPending(m *maps, k kernel) (p *pending, err error) {
	if k.destroy == 0 || k.state == (bit{}) {
		return nil, errors.ErrUnsupported
	}
	p = new(pending)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
			p = nil
		}
	}()
	p.gone, err = ebpf.NewMap(&ebpf.MapSpec{Name: "bypass_gone", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return p, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "bypass_pending", Type: ebpf.Tracing,
		AttachType: ebpf.AttachTraceIter, AttachTo: "tcp", License: license, Instructions: join(
			asm.Instructions{
				asm.LoadMem(sock, asm.R1, iterSock, asm.DWord),
				asm.JEq.Imm(sock, 0, "leave"), // the end of the list
				asm.LoadMem(asm.R2, sock, k.state.offset, asm.Byte),
				asm.JNE.Imm(asm.R2, synSent, "leave"),
			},
			storage(m.asked, 0),
			asm.Instructions{
				asm.JEq.Imm(asm.R0, 0, "leave"),
				asm.LoadMem(value, asm.R0, askedGeneration, asm.DWord),
				asm.StoreImm(asm.RFP, -4, 0, asm.Word),
				asm.LoadMapPtr(asm.R1, p.gone.FD()),
				asm.Mov.Reg(asm.R2, asm.RFP),
				asm.Add.Imm(asm.R2, -4),
				asm.FnMapLookupElem.Call(),
				asm.JEq.Imm(asm.R0, 0, "leave"),
				asm.LoadMem(asm.R2, asm.R0, 0, asm.DWord),
				asm.JNE.Reg(asm.R2, value, "leave"),
				asm.Mov.Reg(asm.R1, sock),
				asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall,
					Constant: int64(k.destroy)},
				asm.Mov.Imm(asm.R0, 0).WithSymbol("leave"),
				asm.Return(),
			})})
	if err != nil {
		return p, err
	}
	p.iterator, err = link.AttachIter(link.IterOptions{Program: program})
	return p, errors.Join(err, program.Close()) // the link has it
}

// end ends the connects that a port of this generation has bypassed, in this thread's namespace: ECONNABORTED.
func (p *pending) end(generation uint64) error {
	if err := p.gone.Put(uint32(0), generation); err != nil {
		return err
	}
	sockets, err := p.iterator.Open()
	if err != nil {
		return err
	}
	for err == nil || errors.Is(err, unix.EAGAIN) { // after a million of sockets
		_, err = sockets.Read(make([]byte, 1)) // of which it tells nothing
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, sockets.Close())
}

func (p *pending) close() (err error) {
	if p.iterator != nil {
		err = p.iterator.Close()
	}
	return errors.Join(err, p.gone.Close())
}
