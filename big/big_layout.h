/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * big_layout.h -- big blocks on media: the values of the block index, and how a lane entry tells its changes.
 *
 * A segment of kind BIG holds blocks side by side from big_first_of() to its end, whole pages of 4 KiB, without headers. The
 * bytes before (but for the segment header) are the line area of small segments and stay as they are, so a segment can change
 * its kind without being formatted.
 *
 * The block index of a big allocator (an FPTree under rule LOG, its header block named by the allocator's core line) has one
 * pair per block: key = pa_off of the block, value = big_value(). The blocks of a segment cover it without gap or overlap;
 * a segment without any pair is one free block.
 */
#ifndef BIG_BIG_LAYOUT_H
#define BIG_BIG_LAYOUT_H

#include "fptree/tree.h"
#include "log/lane_layout.h"
#include "segment/segment.h"

#define BIG_PAGE_BYTES 4096u
#define BIG_PAGE_SHIFT 12u
#define BIG_SIZE_MAX   (16ull << 20) /* if a segment is large enough */

enum big_state {
    BIG_USED = 1,
    BIG_FREE = 2,
    BIG_HOLE = 3 /* free, and the file system may have its space back */
};

static inline uint64_t big_value(uint32_t pages, enum big_state state)
{
    return pages | (uint64_t)state << 32;
}
static inline uint32_t big_value_pages(uint64_t value)
{
    return (uint32_t)value;
}
static inline enum big_state big_value_state(uint64_t value)
{
    return (enum big_state)(value >> 32);
}

/** Offset of the first block in a segment; a multiple of 64 KiB. */
uint64_t big_first_of(uint64_t segment_size);

#define BIG_CHANGES_MAX 3u
#define BIG_NO_SLOT     63u

/** What a change makes of its key. used_pages and free_pages are the entry's two numbers. */
enum big_role {
    BIG_ROLE_REMOVE,      /* no pair any more */
    BIG_ROLE_USED,        /* block: used_pages, used */
    BIG_ROLE_FREE_BEFORE, /* block - free_pages: free_pages, free */
    BIG_ROLE_FREE_AFTER,  /* block + used_pages: free_pages, free */
    BIG_ROLE_MERGED,      /* block - used_pages: free_pages, free */
    BIG_ROLE_COUNT
};

/*
 * A big entry: op, block and dst as in every entry; flags LANE_FLAG_HOLE if its free pair is a hole; used_pages (24 bits) in
 * class_index and zero; three words in argument:
 *
 *   bits  0..39  pa_off of the leaf / 64
 *   bits 40..45  slot set,     63 = none
 *   bits 46..51  slot cleared, 63 = none
 *   bits 52..54  enum big_role
 *   bits 55..63  nine bits of free_pages, the lowest in the first word
 *
 * So key and value of each change follow from the entry alone, also if the leaf's line did not arrive.
 */
struct big_entry {
    pa_off block;
    uint32_t used_pages, free_pages;
    enum big_state free_state;
    uint32_t changes;
    enum big_role role[BIG_CHANGES_MAX];
    struct tree_change change[BIG_CHANGES_MAX];
};
#define BIG_PAGES_MAX ((1u << 24) - 1)

void big_entry_encode(const struct big_entry *b, struct pm_lane_entry *e);
/** False if the entry says what the library never writes. */
bool big_entry_decode(const struct pm_lane_entry *e, struct big_entry *ret);
/** Key of a change by its role; REMOVE has none. */
uint64_t big_entry_key(const struct big_entry *b, enum big_role role);
uint64_t big_entry_value(const struct big_entry *b, enum big_role role);

#endif
