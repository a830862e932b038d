//go:build ignore

/*
 * A preloaded library that has User Mode Linux run where a processor's state is larger than it knows: of Linux 6.1 it gives
 * back 2,696 bytes of a process's registers, and a host with AMX has 11,008, and answers EFAULT to less (6.18). What it does not
 * know stays as it is.
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
