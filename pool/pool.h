/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool.h -- the open pool: everything below, put together behind the public API.
 */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include <stdatomic.h>
#include <sys/types.h>

#include "big/big.h"
#include "huge/huge.h"
#include "pool/background.h"
#include "segment/segment.h"
#include "small/small.h"

#define POOL_TALLIES 16u

/** Fences and lines of operations that hold no core (pa_persist, trees), spread so that cores do not share a line. */
struct pool_tally {
    _Atomic uint64_t fences, lines;
    _Atomic uint32_t calls; /* in progress that began here; see pool_call.h */
} __attribute__((aligned(64)));

/** Context of a block index's leaves. */
struct leaf_space {
    struct pa_pool *pool;
    struct small *small;
    bool locks; /* its functions lock the core; else it is locked */
};

struct pa_pool {
    struct dir dir;
    struct file file;
    struct media media;
    struct manager manager;
    struct core *cores;             /* [core_count] */
    struct small *smalls;           /* [core_count] */
    struct big *bigs;               /* [big_count]: two per lane; see pool_core_of_big */
    struct leaf_space *leaf_spaces; /* [core_count] */
    unsigned core_count, big_count;
    bool read_only;
    bool watched;          /* by memcheck; see pool_watch.h */
    pid_t opener;          /* a child after fork has another */
    struct lock root_lock; /* LOCK_RANK_ROOT */
    bool young;            /* tests: blocks go into the young indexes */
    struct background background;
    struct media_tally open_tally;
    struct pool_tally tallies[POOL_TALLIES];
};

/** What tests set that users do not; 0 / NULL = default. */
struct pool_params {
    uint32_t lanes, lane_entries, slots;   /* create only */
    const struct media_recorder *recorder; /* no thread of the pool's own, then, unless background is set */
    const struct file_hooks *hooks;        /* nor with these */
    bool background;
    bool young;         /* big blocks go into the young indexes, as while the first ones are being read */
    bool locked;        /* the caller has the pool's lock through another handle */
    bool members_known; /* and has looked at the further directories */
};
int pool_create_ex(const char *dir, const pa_options *o, const struct pool_params *params, pa_pool **ret_pool);
int pool_open_ex(const char *dir, const pa_options *o, const struct pool_params *params, pa_pool **ret_pool);
/** As pa_check, with what tests and pa_repair set; params may be NULL. */
int pool_check_ex(const char *dir, const struct pool_params *params, char **ret_report);
/** As pa_repair, with a test's hooks on the files that change; hooks may be NULL. */
int pool_repair_ex(const char *dir, const char *backup_dir, const struct file_hooks *hooks, char **ret_report);
/** Give up an open pool as a crash would, without settling anything: for tests that judge a crash image. */
void pool_abandon(pa_pool *pool);
/** Was the pool opened by the process that this one was forked from? */
bool pool_is_inherited(const pa_pool *pool);
/** pa_close of an inherited pool: gives back what memory it safely can, touches neither media nor locks. */
void pool_leave_to_parent(pa_pool *pool);
/** Does this build count calls in progress (pool_call.h)? */
extern const bool pool_counts_calls;

static inline const struct media *pool_media(const pa_pool *pool)
{
    return &pool->media;
}
static inline struct dir *pool_dir(pa_pool *pool)
{
    return &pool->dir;
}
/** Count what an operation outside the allocators cost. */
void pool_count(const pa_pool *pool, const struct media_tally *t);
static inline struct pm_root *pool_root_line(const pa_pool *pool)
{
    return (struct pm_root *)((char *)pool->file.address + POOL_ROOT_OFFSET);
}
/** Does p name the root block, which belongs to the pool and stays where it is? */
static inline bool pool_is_root(const pa_pool *pool, pa_pptr p)
{
    const pa_pptr *root = &pool_root_line(pool)->root;
    return p.offset == root->offset && p.segment == root->segment;
}
/** May *dst be an owner pointer: in the blocks of a segment, aligned, and the pool writable? */
bool pool_owner_is_possible(const pa_pool *pool, const pa_pptr *dst);
/** The sentence about an owner pointer that is not; PA_EINVAL or PA_EACCES. */
int pool_refuse_owner(const pa_pool *pool, const pa_pptr *dst);
/** Lock the caller's own core if it is free, else another; its index. */
unsigned pool_lock_core(pa_pool *pool);
/** Allocate into an owner pointer that was checked, or that is the pool's own. */
int pool_allocate(pa_pool *pool, pa_pptr *dst, size_t size);
/** As pa_allocate of a small block, but its first 128 bytes are zero, durably, when *dst names it: so whoever puts something there
 *  can tell after a crash whether it did. */
int pool_allocate_blank(pa_pool *pool, pa_pptr *dst, size_t size);
/** Delete segments without a block until target bytes went back to the file system; *ret_released gets what did. */
int pool_release_segments(pa_pool *pool, uint64_t target, uint64_t *ret_released);
/** Free what a checked owner pointer names; see small_free. */
int pool_free(pa_pool *pool, pa_pptr *dst, const struct owner_staging *staging);
/** As pool_allocate, for a block of the big or the huge allocator. */
int pool_allocate_big(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment);
int pool_allocate_huge(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment);
/** As pool_free, for a block in a huge file; *ret_done false: s is no huge block's any more. */
int pool_free_huge(pa_pool *pool, struct segment *s, pa_pptr *dst, const struct owner_staging *staging, bool *ret_done);
/** Change a huge block's size in place, if that can be; *ret_done tells. */
int pool_resize_huge(pa_pool *pool, struct segment *s, pa_off off, size_t size, bool *ret_done);
/** At open: free what a reallocation that a crash cut off has staged; but not in an index that is pending. */
int pool_free_staged(pa_pool *pool);
/** What the small allocator of a core offers the block indexes that the core serves. */
struct big_space pool_big_space(pa_pool *pool, unsigned core);
/** Does a leaf of a block index stand at off, as the small segments' lines say? */
bool pool_is_leaf(const struct manager *m, pa_off off);
/** The core that serves a big allocator. */
static inline unsigned pool_core_of_big(const pa_pool *pool, uint32_t number)
{
    uint32_t lanes = pool->big_count / 2;
    return (number < lanes ? number : number - lanes) % pool->core_count;
}
/** The allocator of a segment of kind BIG, its core locked and its index read; NULL, unlocked, if the segment is no longer that. */
struct big *pool_lock_big(pa_pool *pool, const struct segment *s);
/** Leave to the pool's thread the block indexes that are too large for the first to need them. PA_ENOMEM. */
int pool_find_large_indexes(pa_pool *pool);
/** Is the block in a segment whose index the pool's thread has still to read? */
bool pool_is_pending(const pa_pool *pool, pa_pptr block);
/** Read a block index that nobody uses yet, without its core locked but for moments. PA_ECORRUPT, PA_ENOMEM. */
int pool_read_index(pa_pool *pool, uint32_t number);
/** pa_usable_size; 0 too if it cannot be told. */
size_t pool_usable_size(const pa_pool *pool, pa_pptr p);
/** *ret_bytes = pa_usable_size, 0 if p names no allocated block. A block index that cannot be read: PA_ENOMEM, PA_ECORRUPT... */
int pool_find_size(const pa_pool *pool, pa_pptr p, size_t *ret_bytes);

#endif
