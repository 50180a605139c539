/* Lets User-Mode Linux run on processors with more registers than it knows.
 *
 *   LD_PRELOAD=xstate.so linux.uml ...
 *
 * Up to Linux 6.2 it keeps the floating-point registers of a process in a buffer of fixed size. On a processor with AMX the
 * host's are larger: reading gives the part that fits, but writing a part is refused (EFAULT), and the machine
 * dies before its first process runs. Here what is written is laid over all that is there. The rest, the tiles of AMX, is used by
 * nobody in the machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

typedef long (*Ptrace)(int, long, void *, void *);
static Ptrace next;

/* Not on the stack, which is small; the machine has one processor. */
static char all[1 << 16];

__attribute__((constructor)) static void find(void) { next = (Ptrace)dlsym(RTLD_NEXT, "ptrace"); }

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	long pid = va_arg(rest, int);
	void *address = va_arg(rest, void *);
	void *data = va_arg(rest, void *);
	va_end(rest);
	if (!next)
		find();
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
		struct iovec *part = data;
		struct iovec whole = { all, sizeof all };
		if (next(PTRACE_GETREGSET, pid, address, &whole) == 0 && part->iov_len < whole.iov_len) {
			memcpy(all, part->iov_base, part->iov_len);
			return next(PTRACE_SETREGSET, pid, address, &whole);
		}
	}
	return next(request, pid, address, data);
}
