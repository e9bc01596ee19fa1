/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_watch.h -- blocks as memcheck is to see them: a free one may not be touched, a new one is not initialised.
 *
 * Only marks, no list of blocks: memcheck forgets them with the mapping. What lies between the size that was asked for and the usable
 * size is nobody's until pa_usable_size or pa_foreach has told the latter; then it is the application's, until the block is resized. A
 * block is marked free before it is freed, since another thread may get it at
 * once, and marked new after it was allocated. What the library itself keeps in blocks (trees, leaves of block indexes) is
 * marked as filled when it gets the block.
 */
#ifndef POOL_POOL_WATCH_H
#define POOL_POOL_WATCH_H

#include "pmem/valgrind.h"
#include "pool/pool.h"

/** Is this pool open under Valgrind? The one question that the paths without it ask. */
static inline bool pool_is_watched(const pa_pool *pool)
{
    return VALGRIND_BUILT_IN && __builtin_expect(pool->watched, 0);
}

void pool_watch_allocated_(const pa_pool *pool, pa_pptr block, size_t size);
/** After an allocation of size bytes, by its outcome; returns that. */
static inline int pool_watch_allocated(const pa_pool *pool, const pa_pptr *owner, size_t size, int code)
{
    if (pool_is_watched(pool) && code == 0)
        pool_watch_allocated_(pool, *owner, size);
    return code;
}
void pool_watch_filled_(const pa_pool *pool, pa_pptr block);
/** The same for a block of the library's own. */
static inline int pool_watch_filled(const pa_pool *pool, const pa_pptr *owner, int code)
{
    if (pool_is_watched(pool) && code == 0)
        pool_watch_filled_(pool, *owner);
    return code;
}
/** All usable bytes of a block are to be used. */
void pool_watch_open(const pa_pool *pool, pa_pptr block);
/** Only size bytes of a block were asked for. */
void pool_watch_sized(const pa_pool *pool, pa_pptr block, size_t size);
/** Before a free of *owner: usable bytes, 0 if it names no block. */
size_t pool_watch_freeing(const pa_pool *pool, const pa_pptr *owner);
/** After a free that failed. */
void pool_watch_kept(const pa_pool *pool, pa_pptr block, size_t usable);
/** Before and after a change of size in place from usable to size bytes, which may not take place. */
void pool_watch_resizing(const pa_pool *pool, pa_pptr block, size_t usable, size_t size);
void pool_watch_resized(const pa_pool *pool, pa_pptr block, size_t usable, size_t size);
/** Before close: report the allocated blocks that no pointer in the pool leads to. */
void pool_watch_lost(pa_pool *pool);

#endif
