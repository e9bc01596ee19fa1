/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * range.c -- see range.h.
 *
 * libpmem2 (1.12) takes a GiB more than it is asked for and does not return it, so each range that is deleted costs address space for
 * ever. Ranges that closed pools gave back are therefore kept for the next pool that wants as much, unless addresses are scarce.
 *
 * An x86-64 process has 128 TiB of addresses, and a pool wants 16. If each took that while it can be had, the eighth would leave hardly
 * an address for malloc. So the first takes at most half of what is free, each further one a third: some five have 16 TiB, the next
 * three 8, and so on.
 */
#include "pmem/range.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "pmem/file.h"

#define KEPT_MAX      16u
#define SHARE         3u  /* a range is at most this part of the free addresses... */
#define SHARE_ALONE   2u  /* ...the only one this part */
#define RESERVE_TRIES 16u /* for an aligned place, while other threads map things there */

static struct {
    pthread_mutex_t mutex;
    struct pmem2_vm_reservation *at[KEPT_MAX];
    unsigned kept;
    unsigned in_use;
} ranges = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Looked at one at a time: while one thread holds the space to see that it is there, another would not find any. */
static bool leaves_enough(uint64_t size, unsigned share)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one);
    void *all = mmap(NULL, size * share, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all != MAP_FAILED)
        munmap(all, size * share);
    pthread_mutex_unlock(&one);
    return all != MAP_FAILED;
}

static struct pmem2_vm_reservation *take_kept(uint64_t size)
{
    struct pmem2_vm_reservation *found = NULL;
    pthread_mutex_lock(&ranges.mutex);
    for (unsigned i = 0; i < ranges.kept && found == NULL; i++)
        if (pmem2_vm_reservation_get_size(ranges.at[i]) == size) {
            found = ranges.at[i];
            ranges.at[i] = ranges.at[--ranges.kept];
        }
    pthread_mutex_unlock(&ranges.mutex);
    return found;
}

/* The kernel chooses; if what it chose is not aligned, the same place with room to align in it. Another thread may map
 * something there meanwhile: then again. NULL: refused. */
static struct pmem2_vm_reservation *reserve(uint64_t size)
{
    struct pmem2_vm_reservation *range;
    int result = pmem2_vm_reservation_new(&range, NULL, size);
    for (unsigned i = 0; result == 0 && i < RESERVE_TRIES; i++) {
        uintptr_t base = (uintptr_t)pmem2_vm_reservation_get_address(range);
        if (base % DIR_BASE_ALIGNMENT == 0)
            return range;
        pmem2_vm_reservation_delete(&range);
        struct pmem2_vm_reservation *larger;
        result = pmem2_vm_reservation_new(&larger, NULL, size + DIR_BASE_ALIGNMENT);
        if (result != 0)
            break;
        base = round_up((uintptr_t)pmem2_vm_reservation_get_address(larger), DIR_BASE_ALIGNMENT);
        pmem2_vm_reservation_delete(&larger);
        if (pmem2_vm_reservation_new(&range, (void *)base, size) != 0)
            result = pmem2_vm_reservation_new(&range, NULL, size);
    }
    return result == 0 ? range : NULL;
}

void range_keep(struct pmem2_vm_reservation *range)
{
    bool room = leaves_enough(pmem2_vm_reservation_get_size(range), SHARE);
    pthread_mutex_lock(&ranges.mutex);
    ranges.in_use--;
    room = room && ranges.kept < KEPT_MAX;
    if (room)
        ranges.at[ranges.kept++] = range;
    pthread_mutex_unlock(&ranges.mutex);
    if (!room)
        pmem2_vm_reservation_delete(&range);
}

static uint64_t half(uint64_t size, uint64_t need, uint64_t alignment)
{
    return size / 2 > need ? round_up(size / 2, alignment) : need;
}

static struct pmem2_vm_reservation *take_or_reserve(uint64_t size)
{
    struct pmem2_vm_reservation *range = take_kept(size);
    return range != NULL ? range : reserve(size);
}

static uint64_t modest(uint64_t want, uint64_t need, uint64_t alignment, unsigned share)
{
    for (uint64_t size = want; size / 2 > need; size = half(size, need, alignment))
        if (leaves_enough(size, share))
            return size;
    return want;
}

struct pmem2_vm_reservation *range_new(uint64_t want, uint64_t need, uint64_t alignment)
{
    pthread_mutex_lock(&ranges.mutex);
    unsigned share = ranges.in_use++ == 0 ? SHARE_ALONE : SHARE;
    pthread_mutex_unlock(&ranges.mutex);
    struct pmem2_vm_reservation *range = take_kept(want);
    if (range != NULL)
        return range;
    uint64_t size = modest(want, need, alignment, share);
    range = take_or_reserve(size);
    while (range == NULL && size > need) {
        size = half(size, need, alignment);
        range = take_or_reserve(size);
    }
    if (range == NULL) {
        pthread_mutex_lock(&ranges.mutex);
        ranges.in_use--;
        pthread_mutex_unlock(&ranges.mutex);
    }
    return range;
}
