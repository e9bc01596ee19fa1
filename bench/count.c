/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * count.c -- counts the fences and lines that libpmem executes for libpmemobj. A library of its own, which compare.py preloads in
 * an extra run without timing: functions of libpmem's names here are found first, count, and pass on.
 *
 * A fence counts where libpmem would execute one. Lines are those of flushed ranges and of copies not marked NOFLUSH. libpmem's
 * own functions may call each other through here, so only a thread's outermost call counts.
 */
#include <dlfcn.h>
#include <libpmem.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static uint64_t fences, lines; /* relaxed atomics: nothing is timed here */
static _Thread_local unsigned depth;

static void enter(uint64_t new_fences, const void *address, size_t size)
{
    if (depth++ > 0)
        return;
    __atomic_fetch_add(&fences, new_fences, __ATOMIC_RELAXED);
    if (size != 0)
        __atomic_fetch_add(&lines, ((uintptr_t)address + size - 1) / 64 - (uintptr_t)address / 64 + 1,
                           __ATOMIC_RELAXED);
}

static void enter_copy(const void *address, size_t size, unsigned flags)
{
    uint64_t new_fences = (flags & (PMEM_F_MEM_NODRAIN | PMEM_F_MEM_NOFLUSH)) == 0;
    enter(new_fences, address, flags & PMEM_F_MEM_NOFLUSH ? 0 : size);
}

/* libpmem's function behind this one. */
static void find(void *ret_function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    *(void **)ret_function = found;
}

void bench_pmem_counts(uint64_t *ret_fences, uint64_t *ret_lines);
void bench_pmem_counts(uint64_t *ret_fences, uint64_t *ret_lines)
{
    *ret_fences = __atomic_load_n(&fences, __ATOMIC_RELAXED);
    *ret_lines = __atomic_load_n(&lines, __ATOMIC_RELAXED);
}

void pmem_flush(const void *address, size_t size)
{
    static void (*real)(const void *, size_t);
    if (real == NULL)
        find(&real, "pmem_flush");
    enter(0, address, size);
    real(address, size);
    depth--;
}

void pmem_drain(void)
{
    static void (*real)(void);
    if (real == NULL)
        find(&real, "pmem_drain");
    enter(1, NULL, 0);
    real();
    depth--;
}

void pmem_persist(const void *address, size_t size)
{
    static void (*real)(const void *, size_t);
    if (real == NULL)
        find(&real, "pmem_persist");
    enter(1, address, size);
    real(address, size);
    depth--;
}

void *pmem_memmove(void *dst, const void *src, size_t size, unsigned flags)
{
    static void *(*real)(void *, const void *, size_t, unsigned);
    if (real == NULL)
        find(&real, "pmem_memmove");
    enter_copy(dst, size, flags);
    real(dst, src, size, flags);
    depth--;
    return dst;
}

void *pmem_memcpy(void *dst, const void *src, size_t size, unsigned flags)
{
    static void *(*real)(void *, const void *, size_t, unsigned);
    if (real == NULL)
        find(&real, "pmem_memcpy");
    enter_copy(dst, size, flags);
    real(dst, src, size, flags);
    depth--;
    return dst;
}

void *pmem_memset(void *dst, int c, size_t size, unsigned flags)
{
    static void *(*real)(void *, int, size_t, unsigned);
    if (real == NULL)
        find(&real, "pmem_memset");
    enter_copy(dst, size, flags);
    real(dst, c, size, flags);
    depth--;
    return dst;
}
