/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * huge.h -- blocks larger than the big allocator's: a file per block, in consecutive slots of the address range (PAllocator,
 * VLDB 2017, section 4.4). Freeing one gives its space back to the file system at once.
 *
 * A block belongs to a core like the segments of the other allocators: its operations run under that core's lock and are logged
 * in that core's lane. The table word of its first slot is what says whether it is allocated: READY, and nothing else.
 *
 * Invariants:
 *  1. A READY word of kind HUGE has a durable file whose extent lies in the word's slots; the words of the other slots are zero.
 *  2. The word is redone from a lane only by the newest entry, and only if that is not DONE: words carry no LSN.
 *  3. While a file is being made or removed, its word says CREATING or DELETING, so the next open removes it.
 */
#ifndef HUGE_HUGE_H
#define HUGE_HUGE_H

#include "segment/owner.h"

/** Make the file of a block, durable but not yet allocated to anybody. No lock is held. PA_EINVAL above HUGE_SIZE_MAX,
 *  PA_ENOSPC, PA_ENOMEM. */
int huge_prepare(struct manager *m, size_t size, size_t alignment, struct segment **ret);
/** Give the prepared block to *dst, all or nothing. The core is locked. */
void huge_alloc(struct manager *m, struct core *core, struct segment *s, pa_pptr *dst);
/** Free the block that *dst names, which is s's, and null *dst, or give *dst what staging (unless NULL) holds. s's core is locked;
 *  after the lock is released, huge_discard. PA_EINVAL. */
int huge_free(struct manager *m, struct core *core, struct segment *s, pa_pptr *dst,
              const struct owner_staging *staging);
/** Give a freed block's space back. No lock is held. */
void huge_discard(struct manager *m, struct segment *s);

/** Take the block at off, which is s's, for a change of its size, or PA_EINVAL. s's core is locked. */
int huge_begin_resize(const struct manager *m, struct segment *s, pa_off off);
/** Let it have room for size bytes in place, if that can be; no lock is held. Never an error for want of room: *ret_done tells. */
int huge_resize(struct manager *m, struct segment *s, size_t size, bool *ret_done);
/** End it. s's core is locked. */
void huge_end_resize(struct segment *s);

/** Usable size of the block at off, 0 if s has none there. No lock. */
size_t huge_usable_size(const struct segment *s, pa_off off);

/** Recovery: redo the table word of a lane's newest entry, not DONE, and the owner pointer of an allocation (dst; of a free, the
 *  caller does). The caller fences. PA_ECORRUPT. */
int huge_redo(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number,
              pa_pptr *dst);

#endif
