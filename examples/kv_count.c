/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv_count.c -- counts what libpmemobj writes back.
 *
 * libpmemobj calls libpmem through the dynamic linker, so a program that exports functions of the same names is asked first.
 * Each counts and passes on. A fence is counted where libpmem would execute one; lines are those of flushed ranges and of copies that
 * are not marked NOFLUSH. libpmem's functions call each other the same way, so only the outermost call counts. Counters are
 * per thread, one line each, without LOCK-prefixed instructions.
 *
 * posix_fallocate stands between too: it leaves the pool file sparse, as kv.c's pool is, so that the bytes held are pages in use.
 */
#include "examples/kv_count.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

#include <libpmem.h>

#define SLOTS 256u

static struct counter {
    _Alignas(64) uint64_t fences;
    uint64_t lines;
} counters[SLOTS];

static unsigned next_slot;
static _Thread_local struct counter *mine;
static _Thread_local unsigned depth;

static struct {
    void (*flush)(const void *, size_t);
    void (*drain)(void);
    void (*persist)(const void *, size_t);
    int (*msync)(const void *, size_t);
    void *(*memmove)(void *, const void *, size_t, unsigned);
    void *(*memcpy)(void *, const void *, size_t, unsigned);
    void *(*memset)(void *, int, size_t, unsigned);
    void *(*memmove_persist)(void *, const void *, size_t);
    void *(*memcpy_persist)(void *, const void *, size_t);
    void *(*memset_persist)(void *, int, size_t);
} real;

/* libpmemobj's constructor may already call, so the look-up runs with the highest priority. */
__attribute__((constructor(101))) static void find_real(void)
{
#define FIND(name) (*(void **)&real.name = dlsym(RTLD_NEXT, "pmem_" #name))
    FIND(flush);
    FIND(drain);
    FIND(persist);
    FIND(msync);
    FIND(memmove);
    FIND(memcpy);
    FIND(memset);
    FIND(memmove_persist);
    FIND(memcpy_persist);
    FIND(memset_persist);
#undef FIND
    if (real.flush == NULL || real.memset_persist == NULL)
        abort();
}

/** Begin a call; the outermost counts. */
static void enter(uint64_t fences, const void *address, size_t size)
{
    if (depth++ > 0)
        return;
    if (mine == NULL)
        mine = &counters[__atomic_fetch_add(&next_slot, 1, __ATOMIC_RELAXED) % SLOTS];
    if (real.flush == NULL)
        find_real();
    mine->fences += fences;
    if (size != 0)
        mine->lines += ((uintptr_t)address + size - 1) / 64 - (uintptr_t)address / 64 + 1;
}

static void enter_copy(const void *address, size_t size, unsigned flags)
{
    if (flags & PMEM_F_MEM_NOFLUSH)
        enter(0, address, 0);
    else
        enter((flags & PMEM_F_MEM_NODRAIN) == 0, address, size);
}

static void leave(void)
{
    depth--;
}

void kv_count(uint64_t *ret_fences, uint64_t *ret_lines)
{
    *ret_fences = *ret_lines = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        *ret_fences += counters[i].fences;
        *ret_lines += counters[i].lines;
    }
}

void pmem_flush(const void *address, size_t size)
{
    enter(0, address, size);
    real.flush(address, size);
    leave();
}

void pmem_drain(void)
{
    enter(1, NULL, 0);
    real.drain();
    leave();
}

void pmem_persist(const void *address, size_t size)
{
    enter(1, address, size);
    real.persist(address, size);
    leave();
}

int pmem_msync(const void *address, size_t size)
{
    enter(1, address, size);
    int r = real.msync(address, size);
    leave();
    return r;
}

void *pmem_memmove(void *dst, const void *src, size_t size, unsigned flags)
{
    enter_copy(dst, size, flags);
    void *r = real.memmove(dst, src, size, flags);
    leave();
    return r;
}

void *pmem_memcpy(void *dst, const void *src, size_t size, unsigned flags)
{
    enter_copy(dst, size, flags);
    void *r = real.memcpy(dst, src, size, flags);
    leave();
    return r;
}

void *pmem_memset(void *dst, int c, size_t size, unsigned flags)
{
    enter_copy(dst, size, flags);
    void *r = real.memset(dst, c, size, flags);
    leave();
    return r;
}

void *pmem_memmove_persist(void *dst, const void *src, size_t size)
{
    enter(1, dst, size);
    void *r = real.memmove_persist(dst, src, size);
    leave();
    return r;
}

void *pmem_memcpy_persist(void *dst, const void *src, size_t size)
{
    enter(1, dst, size);
    void *r = real.memcpy_persist(dst, src, size);
    leave();
    return r;
}

void *pmem_memset_persist(void *dst, int c, size_t size)
{
    enter(1, dst, size);
    void *r = real.memset_persist(dst, c, size);
    leave();
    return r;
}

/* By its own name: with large-file options the header gives the C name another symbol. */
int leave_sparse(int fd, int64_t offset, int64_t size) __asm__("posix_fallocate");
int leave_sparse(int fd, int64_t offset, int64_t size)
{
    (void)fd, (void)offset, (void)size;
    return 0;
}
