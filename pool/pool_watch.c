/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_watch.c -- blocks as memcheck is to see them. See pool_watch.h. */
#include "pool/pool_watch.h"

void pool_watch_allocated_(const pa_pool *pool, pa_pptr block, size_t size)
{
    valgrind_mark_new(pa_direct(pool, block), pool_usable_size(pool, block));
    pool_watch_sized(pool, block, size);
}

void pool_watch_filled_(const pa_pool *pool, pa_pptr block)
{
    valgrind_mark_filled(pa_direct(pool, block), pool_usable_size(pool, block));
}

void pool_watch_sized(const pa_pool *pool, pa_pptr block, size_t size)
{
    size_t usable = pool_usable_size(pool, block);
    if (size < usable)
        valgrind_mark_free((char *)pa_direct(pool, block) + size, usable - size);
}

/* What may not be touched is at the block's end. */
void pool_watch_open(const pa_pool *pool, pa_pptr block)
{
    char *address = pa_direct(pool, block);
    size_t usable = pool_usable_size(pool, block);
    char *slack = usable != 0 ? valgrind_first_free(address, usable) : NULL;
    if (slack != NULL)
        valgrind_mark_new(slack, usable - (size_t)(slack - address));
}

/* All of the block but its owner, if that lies in it: a free nulls the owner. */
static void mark_free_but(char *block, size_t usable, const pa_pptr *owner)
{
    size_t at = (size_t)((const char *)owner - block);
    if (at >= usable) {
        valgrind_mark_free(block, usable);
        return;
    }
    valgrind_mark_free(block, at);
    valgrind_mark_free(block + at + sizeof *owner, usable - at - sizeof *owner);
}

size_t pool_watch_freeing(const pa_pool *pool, const pa_pptr *owner)
{
    size_t usable = pool_usable_size(pool, *owner);
    if (usable != 0)
        mark_free_but(pa_direct(pool, *owner), usable, owner);
    return usable;
}

void pool_watch_kept(const pa_pool *pool, pa_pptr block, size_t usable)
{
    if (usable != 0)
        valgrind_mark_filled(pa_direct(pool, block), usable);
}

void pool_watch_resizing(const pa_pool *pool, pa_pptr block, size_t usable, size_t size)
{
    if (size < usable)
        valgrind_mark_free((char *)pa_direct(pool, block) + size, usable - size);
}

void pool_watch_resized(const pa_pool *pool, pa_pptr block, size_t usable, size_t size)
{
    char *address = pa_direct(pool, block);
    size_t now = pool_usable_size(pool, block);
    size_t kept = now < usable ? now : usable;
    if (size < kept)
        valgrind_mark_filled(address + size, kept - size);
    if (now > usable)
        valgrind_mark_new(address + usable, now - usable);
}
