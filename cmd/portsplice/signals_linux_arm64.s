//go:build !profile

#include "textflag.h"

// The kernel calls these; see signals_linux.go. They use no stack and no Go.

TEXT exitOnSignal<>(SB), NOSPLIT|NOFRAME, $0
	MOVD $0, R0
	MOVD $94, R8 // exit_group
	SVC
	BRK

TEXT askOnSignal<>(SB), NOSPLIT|NOFRAME, $0
	MOVW ·askDescriptor(SB), R0
	MOVD $one<>(SB), R1
	MOVD $8, R2
	MOVD $64, R8 // write
	SVC
	RET

TEXT sigreturn<>(SB), NOSPLIT|NOFRAME, $0
	MOVD $139, R8 // rt_sigreturn
	SVC
	BRK

DATA one<>(SB)/8, $1
GLOBL one<>(SB), RODATA, $8

DATA ·exitHandler(SB)/8, $exitOnSignal<>(SB)
GLOBL ·exitHandler(SB), RODATA, $8
DATA ·askHandler(SB)/8, $askOnSignal<>(SB)
GLOBL ·askHandler(SB), RODATA, $8
DATA ·returnFromHandler(SB)/8, $sigreturn<>(SB)
GLOBL ·returnFromHandler(SB), RODATA, $8
