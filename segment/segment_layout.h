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
    SEGMENT_KIND_COUNT
};

/*
 * Table word of a slot: 8 bytes, changed by one atomic store, so every change of state is atomic.
 *
 *   bits  0..3   state
 *   bits  4..7   kind
 *   bits  8..23  owner: the core that the segment last belonged to
 *   bits 24..47  zero
 *   bits 48..63  checksum of the other bits and the slot number
 *
 * A slot never used is all zero. Owner and lock: the manager. Durable: at once (flush and fence after each change).
 */
static inline uint64_t segment_word_checksum(uint64_t low_48_bits, uint32_t slot)
{
    return mix64(low_48_bits + mix64(slot + 1)) & 0xffff;
}
static inline uint64_t segment_word(enum segment_state state, enum segment_kind kind, unsigned owner, uint32_t slot)
{
    if (state == SEGMENT_STATE_FREE)
        return 0;
    uint64_t low = (uint64_t)state | (uint64_t)kind << 4 | (uint64_t)owner << 8;
    return low | segment_word_checksum(low, slot) << 48;
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
static inline bool segment_word_is_valid(uint64_t word, uint32_t slot)
{
    enum segment_state state = segment_word_state(word);
    enum segment_kind kind = segment_word_kind(word);
    if (state >= SEGMENT_STATE_COUNT || kind >= SEGMENT_KIND_COUNT)
        return false;
    return word == segment_word(state, kind, segment_word_owner(word), slot);
}

#define SEGMENT_MAGIC        0x314745534150u /* "PASEG1" */
#define SEGMENT_HEADER_BYTES 4096u

/*
 * First line of a segment file; the rest of its first page is zero. Written once, before the table word says READY.
 *
 *   0    8  magic
 *   8    4  version
 *  12    4  slot
 *  16   16  uuid of the pool
 *  32    8  segment_size
 *  40   16  zero
 *  56    8  checksum  XXH3 of bytes 0..55
 */
struct pm_segment_header {
    uint64_t magic;
    uint32_t version, slot;
    uint8_t uuid[16];
    uint64_t segment_size;
    uint64_t zero[2];
    uint64_t checksum;
};
_Static_assert(sizeof(struct pm_segment_header) == 64, "one line");

#endif
