/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * big.h -- core-local allocator of blocks over 16 KiB up to 16 MiB: best fit with immediate coalescing (PAllocator, VLDB 2017,
 * section 4.3).
 *
 * Glossary. Block index: the FPTree on media that has one pair per block, used or free; the truth. Free index: the free blocks in
 * DRAM, by size and by address; made from the block index when the allocator is loaded, at its first use after open. Hole: a
 * free block whose space was given back to the file system. Whole: a free block that is all of its segment.
 *
 * Invariants (big_check verifies them against the media):
 *  1. The pairs of a segment cover its data without gap or overlap, or it has none.
 *  2. No two neighbours in a segment are both free.
 *  3. The free index holds exactly the pairs that are free or holes, and one whole block per segment without pairs.
 *
 * Each lane has two allocators with a block index each: number n and, for n + lanes, its young one. Blocks go into the young one
 * only while the first has not been read yet after an open: so nobody waits for a large index. With fewer cores than before, a
 * core serves several lanes. Everything runs under core->lock, but for the reading of an index that nobody uses yet.
 */
#ifndef BIG_BIG_H
#define BIG_BIG_H

#include "big/big_free.h"
#include "segment/owner.h"

#define BIG_MEMO_SLOTS 64u

/** Where the block index's leaves and header block come from; called with the core locked. */
struct big_space {
    struct tree_space leaves;
    int (*allocate_header)(void *context, pa_pptr *owner);
};

struct big {
    struct core *core;
    struct manager *manager;
    struct big_space space;
    uint16_t number; /* of its core line on media, and owner of its segments */
    bool loaded;     /* the rest is valid */
    bool incomplete; /* a free block has no descriptor, for want of DRAM: load again */
    struct tree *index;
    struct big_free free;
    uint64_t allocated_bytes, allocated_blocks;
    struct {
        void *line;
        uint32_t memo;
    } memo[BIG_MEMO_SLOTS]; /* lane_touch's words, direct mapped */
};

enum big_growth { BIG_GROW, BIG_NO_GROW };

void big_init(struct big *o, struct core *core, struct manager *m, const struct big_space *space, uint16_t number);
void big_fini(struct big *o);
/** Largest block of a pool with such segments. */
uint64_t big_size_max(uint64_t segment_size);

/** Read the block index if that was not done since open. PA_ECORRUPT, PA_ENOMEM. */
int big_load(struct big *o);
/** Take over what another object of the same number has read: o was not loaded yet. context: see tree_move. */
void big_adopt(struct big *o, struct big *read, void *context);
/** Where the allocator's index is named on media. */
pa_pptr *big_index_owner(const struct manager *m, uint32_t number);
/** Allocate and point *dst at the block, all or nothing. alignment: power of two up to 2 MiB. PA_ENOSPC, PA_ENOMEM, PA_ECORRUPT. */
int big_alloc(struct big *o, size_t size, size_t alignment, pa_pptr *dst, enum big_growth growth);
/** Free *dst's block and null *dst, or give *dst what staging (unless NULL) holds. PA_EINVAL. */
int big_free_block(struct big *o, pa_pptr *dst, const struct owner_staging *staging);
/** Change the block's size without moving it: all or nothing, *done tells. Never an error for want of room. */
int big_resize(struct big *o, pa_pptr block, size_t size, bool *ret_done);
/** Usable size, 0 if no used block starts at off. Fails if the index cannot be read. */
int big_usable_size(struct big *o, pa_off off, size_t *ret_bytes);
/** Call visit for the used blocks with offsets from *from on, at most n; *from = where to go on, 0 = end. */
struct big_visited {
    pa_off off;
    size_t bytes;
};
int big_list(struct big *o, pa_off *from, struct big_visited *ret, size_t n, size_t *ret_count);
/** Punch a hole into the largest free block; *ret_released = bytes that the file system got back, *ret_any = there was a block.
 *  PA_ENOTSUP. */
int big_punch(struct big *o, uint64_t *ret_released, bool *ret_any);
/** Give every whole free segment back to the manager. */
void big_release_whole(struct big *o);
uint64_t big_largest_free(struct big *o);

/** Recovery: redo a BIG entry's index changes on the leaves and write them back (the caller fences). is_leaf: does a leaf stand
 *  there, after the small entries were redone? */
int big_redo(const struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number,
             bool (*is_leaf)(const struct manager *m, pa_off leaf));
/** After the redo: are all changes of the lane's newest entry in their leaves? */
bool big_is_redone(const struct manager *m, const struct pm_lane_entry *e,
                   bool (*is_leaf)(const struct manager *m, pa_off leaf));
/** Call visit for every block of the small allocator that the index is made of. The index is loaded. */
int big_foreach_leaf(struct big *o, int (*visit)(pa_off off, void *arg), void *arg);
/** Verify the index on media: tree_check and invariants 1 and 2. */
int big_check(struct big *o);

#endif
