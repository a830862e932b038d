//go:build ignore

/*
 * A preloaded library that has User Mode Linux run where a processor's state is larger than it knows: Linux 6.1 gives back
 * 2.7 kB of a process's registers, and the host takes all or nothing (xstateregs_set in arch/x86/kernel/fpu/regset.c), which
 * is 11 kB with AMX. What it does not know stays as it is. (Linux 6.13 asks for the size.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
	va_list list;
	va_start(list, request);
	pid_t pid = va_arg(list, pid_t);
	void *address = va_arg(list, void *);
	struct iovec *registers = va_arg(list, struct iovec *);
	va_end(list);
	long (*host)(enum __ptrace_request, ...) = dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE)
		return host(request, pid, address, registers);

	static _Alignas(64) char state[64 << 10];
	struct iovec all = {state, sizeof state};
	long failed = host(PTRACE_GETREGSET, pid, address, &all);
	if (failed)
		return failed;
	memcpy(state, registers->iov_base, registers->iov_len < all.iov_len ? registers->iov_len : all.iov_len);
	return host(PTRACE_SETREGSET, pid, address, &all);
}
