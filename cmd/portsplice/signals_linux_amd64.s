//go:build !profile

#include "textflag.h"

// The kernel calls these; see signals_linux.go. They use no stack and no Go.

TEXT exitOnSignal<>(SB), NOSPLIT|NOFRAME, $0
	XORL DI, DI
	MOVL $231, AX // exit_group
	SYSCALL
	INT  $3

TEXT askOnSignal<>(SB), NOSPLIT|NOFRAME, $0
	MOVL ·askDescriptor(SB), DI
	LEAQ one<>(SB), SI
	MOVL $8, DX
	MOVL $1, AX // write
	SYSCALL
	RET

TEXT sigreturn<>(SB), NOSPLIT|NOFRAME, $0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT  $3

DATA one<>(SB)/8, $1
GLOBL one<>(SB), RODATA, $8

DATA ·exitHandler(SB)/8, $exitOnSignal<>(SB)
GLOBL ·exitHandler(SB), RODATA, $8
DATA ·askHandler(SB)/8, $askOnSignal<>(SB)
GLOBL ·askHandler(SB), RODATA, $8
DATA ·returnFromHandler(SB)/8, $sigreturn<>(SB)
GLOBL ·returnFromHandler(SB), RODATA, $8
