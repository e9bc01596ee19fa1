/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * small.h -- core-local allocator of blocks up to 16 KiB: segregated fit over slabs (PAllocator, VLDB 2017, section 4.2).
 *
 * Glossary. Slab: 64 KiB of blocks of one size class. Current slab: the one a class allocates from. Partial: has free and
 * allocated blocks. Free slab: no block allocated; takes any class at its next use, by a FORMAT entry that is also the first
 * allocation's, so formatting costs no fence. Hole: a free slab whose space was given back to the file system. Unread segment: owned, but its lines were not looked at since open.
 *
 * Invariants (small_is_valid checks what DRAM alone shows of 1 and 3, pa_check and the crash explorer the rest):
 *  1. A slab is in exactly one place: current of its class, partial list of its class, free list or hole list, full (no list),
 *     or bad (no list).
 *  2. slab.free_blocks + set bits in its lines == blocks of its class, unless a format is pending (then no bit counts).
 *  3. small.free_slabs == length of free list and hole list == sum of the segments' free_slabs.
 *  4. The lines of an owned segment change only under the owner's lock, each change after its entry in the owner's lane.
 * The media's bits are the only record of what is allocated; DRAM holds counts and lists that reading them gives again.
 */
#ifndef SMALL_SMALL_H
#define SMALL_SMALL_H

#include "segment/owner.h"
#include "small/small_slab.h"

enum slab_state { SLAB_FREE, SLAB_PARTIAL, SLAB_CURRENT, SLAB_FULL, SLAB_BAD };

/** DRAM twin of a slab. */
struct small_slab {
    struct small_slab *next, *previous; /* partial list of its class, or free list */
    struct small_segment *home;
    uint32_t memo[SLAB_LINES]; /* lane_touch's word per line */
    uint32_t number;           /* in its segment */
    uint16_t free_blocks;
    uint8_t class_index, state, hint; /* hint: words below it have no free block */
    bool format_pending;              /* media still show another class, or none */
    bool hole;                        /* free, and the file system may have its space back */
    bool unpunched;                   /* a hole that the file system would not make: worth another try */
};

/** DRAM twin of a small segment. */
struct small_segment {
    struct segment *segment;
    struct pm_slab_line *lines; /* SLAB_LINES per slab */
    uint32_t slab_count, free_slabs;
    struct small_slab slabs[];
};

struct slab_list {
    struct small_slab *first;
};

/** One core's object. All under core->lock. */
struct small {
    struct core *core;
    struct manager *manager;
    struct small_slab *current[SMALL_CLASSES];
    struct slab_list partial[SMALL_CLASSES];
    struct slab_list free_list, hole_list;      /* free slabs, by whether their space is there */
    uint32_t free_slabs, hole_slabs;            /* free_slabs counts both */
    struct segment *unread;                     /* linked by next_free */
    uint64_t allocated_bytes, allocated_blocks; /* callers' blocks in segments that were read */
    uint64_t dram_bytes;
};

void small_init(struct small *o, struct core *core, struct manager *m);
void small_fini(struct small *o);
/** At open: give the object a segment to look after; it is read when first needed. */
void small_adopt(struct small *o, struct segment *s);

/** Where a block is allocated from. */
enum small_growth {
    SMALL_GROW,   /* a few unread segments, then a new segment */
    SMALL_NO_GROW /* every unread segment, no new one */
};
/** Allocate a block of a class and point *dst at it, all or nothing. The core is locked. PA_ENOSPC, PA_ENOMEM, PA_ECORRUPT. */
int small_alloc(struct small *o, unsigned class_index, pa_pptr *dst, enum small_growth growth);
/** As small_alloc of at least SMALL_BLANK_BYTES, and the block's first SMALL_BLANK_BYTES are zero, durably, when *dst names it. */
int small_alloc_blank(struct small *o, unsigned class_index, pa_pptr *dst, enum small_growth growth);
/** Whose block may be freed. */
enum small_owner { SMALL_OWNER_USER, SMALL_OWNER_LIBRARY };
/** Free *dst's block, which lies in this object's segment s, and null *dst, or give *dst what staging (unless NULL) holds and
 *  null that. The core is locked. PA_EINVAL. */
int small_free(struct small *o, struct segment *s, pa_pptr *dst, enum small_owner owner,
               const struct owner_staging *staging);
/** Read what is unread, so that the counters are complete. The core is locked. */
int small_read_all(struct small *o);
/** Usable size of the caller's block at offset in s, 0 if none starts there or it is free. No lock. */
size_t small_usable_size(const struct manager *m, const struct segment *s, uint64_t offset);
/** Is a block of the class allocated at offset in s, as the media say? */
bool small_holds(const struct manager *m, const struct segment *s, uint64_t offset, unsigned class_index);
/** Copy one slab's bits (SLAB_LINES * SLAB_LINE_WORDS words) and class; false if it holds no caller's block. The core is locked. */
bool small_snapshot(const struct manager *m, const struct segment *s, uint32_t slab, uint64_t *ret_bits,
                    unsigned *ret_class);
/** Give segments without a block back to the manager. The core is locked. */
void small_release_free(struct small *o);
/** Give the space of one free slab back to the file system; *ret_released = bytes that came back, *ret_any = there was one. The
 *  core is locked. PA_ENOTSUP. */
int small_punch(struct small *o, uint64_t *ret_released, bool *ret_any);
/** Largest block that can be had without a new segment. The core is locked. */
size_t small_largest_free(const struct small *o);

/** Recovery: redo a SMALL entry on the media and write the lines back (the caller fences). PA_ECORRUPT. */
int small_redo(const struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number);
/** Call visit for the library's own blocks (SMALL_CLASS_LEAF, SMALL_CLASS_INDEX) in s; its non-zero value stops the walk and is
 *  returned. The core is locked, or nobody else is there. */
int small_foreach_library(const struct manager *m, const struct segment *s, int (*visit)(pa_off off, void *arg),
                          void *arg);
/** Are all lines of a segment valid, and without blocks unless the segment is SMALL? Names the first bad slab. */
int small_check_segment(const struct manager *m, const struct segment *s);
/** The first slab with a valid line that is numbered above lsn; UINT32_MAX = none. */
uint32_t small_line_above(const struct manager *m, const struct segment *s, uint64_t lsn);
bool small_is_valid(const struct small *o);

#endif
