/* SPDX-License-Identifier: BSD-3-Clause */
/* segment_layout.h -- segments on media: the table word in the pool file and the header in the segment file. */
#ifndef SEGMENT_SEGMENT_LAYOUT_H
#define SEGMENT_SEGMENT_LAYOUT_H

#include <stdint.h>

#include "base/bits.h"

enum segment_state {
    SEGMENT_STATE_FREE,     /* no file */
    SEGMENT_STATE_CREATING, /* a file may exist; removed at open */
    SEGMENT_STATE_READY,    /* the file exists, durable, with a valid header */
    SEGMENT_STATE_DELETING, /* a file may exist; removed at open */
    SEGMENT_STATE_COUNT
};

enum segment_kind {
    SEGMENT_KIND_NONE,  /* on the manager's free list */
    SEGMENT_KIND_SMALL, /* slabs of a small allocator */
    SEGMENT_KIND_BIG,   /* blocks of a big allocator */
    SEGMENT_KIND_HUGE,  /* one block in a file of its own, in this slot and those after it */
    SEGMENT_KIND_COUNT
};

/*
 * Table word of a slot: 8 bytes, changed by one atomic store, so every change of state is atomic.
 *
 *   bits  0..3   state
 *   bits  4..7   kind
 *   bits  8..23  owner: the core (kind BIG: the block index) that the segment belongs or belonged to
 *   bits 24..47  slots that the file covers after this one (kind HUGE), else zero
 *   bits 48..63  checksum of the other bits and the slot number
 *
 * A slot never used is all zero. Owner and lock: the manager. Durable: at once (flush and fence after each change).
 */
static inline uint64_t segment_word_checksum(uint64_t low_48_bits, uint32_t slot)
{
    return mix64(low_48_bits + mix64(slot + 1)) & 0xffff;
}
static inline uint64_t segment_word_long(enum segment_state state, enum segment_kind kind, unsigned owner,
                                         uint32_t more_slots, uint32_t slot)
{
    if (state == SEGMENT_STATE_FREE)
        return 0;
    uint64_t low = (uint64_t)state | (uint64_t)kind << 4 | (uint64_t)owner << 8 | (uint64_t)more_slots << 24;
    return low | segment_word_checksum(low, slot) << 48;
}
static inline uint64_t segment_word(enum segment_state state, enum segment_kind kind, unsigned owner, uint32_t slot)
{
    return segment_word_long(state, kind, owner, 0, slot);
}
static inline enum segment_state segment_word_state(uint64_t word)
{
    return (enum segment_state)(word & 15);
}
static inline enum segment_kind segment_word_kind(uint64_t word)
{
    return (enum segment_kind)(word >> 4 & 15);
}
static inline unsigned segment_word_owner(uint64_t word)
{
    return (unsigned)(word >> 8 & 0xffff);
}
static inline uint32_t segment_word_more_slots(uint64_t word)
{
    return (uint32_t)(word >> 24 & 0xffffff);
}
static inline bool segment_word_is_valid(uint64_t word, uint32_t slot)
{
    enum segment_state state = segment_word_state(word);
    enum segment_kind kind = segment_word_kind(word);
    if (state >= SEGMENT_STATE_COUNT || kind >= SEGMENT_KIND_COUNT)
        return false;
    uint32_t more = segment_word_more_slots(word);
    bool kind_fits = state == SEGMENT_STATE_READY || kind == SEGMENT_KIND_NONE || kind == SEGMENT_KIND_HUGE;
    return (more == 0 || kind == SEGMENT_KIND_HUGE) && kind_fits &&
           word == segment_word_long(state, kind, segment_word_owner(word), more, slot);
}

#define SEGMENT_MAGIC        0x314745534150u /* "PASEG1" */
#define SEGMENT_HEADER_BYTES 4096u

/*
 * A segment is divided the same way whatever its kind, so that it changes its kind without being formatted: header page, line
 * area, data. The line area belongs to small segments and keeps what it holds while the segment is of another kind.
 */
#define SEGMENT_UNIT_BYTES      65536u
#define SEGMENT_UNIT_META_BYTES 704u
/** Units of 64 KiB of data that fit beside their part of the line area. */
static inline uint32_t segment_units_of(uint64_t segment_size)
{
    return (uint32_t)((segment_size - SEGMENT_HEADER_BYTES) / (SEGMENT_UNIT_BYTES + SEGMENT_UNIT_META_BYTES));
}
/** Offset of the data; a multiple of 64 KiB. */
static inline uint64_t segment_data_of(uint64_t segment_size)
{
    return segment_size - (uint64_t)segment_units_of(segment_size) * SEGMENT_UNIT_BYTES;
}

/*
 * First line of a segment or huge file; the rest of its first page is zero. Written once, before the table word says READY.
 *
 *   0    8  magic
 *   8    4  version
 *  12    4  slot
 *  16   16  uuid of the pool
 *  32    8  segment_size
 *  40    8  file_bytes
 *  48    8  born: lane entries numbered up to it are about an earlier file of this slot
 *           (huge file: the extent word; zero in the checksum)
 *  56    8  checksum  XXH3 of bytes 0..55
 */
struct pm_segment_header {
    uint64_t magic;
    uint32_t version, slot;
    uint8_t uuid[16];
    uint64_t segment_size;
    uint64_t file_bytes; /* when created; a huge file may be longer */
    union {
        uint64_t born;
        uint64_t extent;
    };
    uint64_t checksum;
};
_Static_assert(sizeof(struct pm_segment_header) == 64, "one line");

/*
 * Extent word of a huge file: changed by one atomic store when the block grows in place.
 *
 *   bits  0..31  pages of 4 KiB of the file that are in use; the file may be longer, never shorter
 *   bits 32..47  page that the block begins at; it ends with the last page
 *   bits 48..63  checksum of the other bits and the slot number
 */
#define HUGE_PAGE_BYTES 4096u
/** Largest block: the extent word counts fewer than 2^32 pages, and the block's alignment may leave 2 MiB before it. */
#define HUGE_SIZE_MAX ((UINT64_C(16) << 40) - (UINT64_C(4) << 20))
static inline uint64_t huge_extent(uint64_t file_bytes, uint64_t block_offset, uint32_t slot)
{
    uint64_t low = file_bytes / HUGE_PAGE_BYTES | block_offset / HUGE_PAGE_BYTES << 32;
    return low | segment_word_checksum(low, slot) << 48;
}
static inline uint64_t huge_extent_file_bytes(uint64_t extent)
{
    return (extent & 0xffffffff) * HUGE_PAGE_BYTES;
}
static inline uint64_t huge_extent_block_offset(uint64_t extent)
{
    return (extent >> 32 & 0xffff) * HUGE_PAGE_BYTES;
}
static inline bool huge_extent_is_valid(uint64_t extent, uint32_t slot)
{
    uint64_t block = huge_extent_block_offset(extent);
    return block >= SEGMENT_HEADER_BYTES && block < huge_extent_file_bytes(extent) &&
           extent == huge_extent(huge_extent_file_bytes(extent), block, slot);
}

#endif
