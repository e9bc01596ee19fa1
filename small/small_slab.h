/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * small_slab.h -- a slab's lines: what they say, how an entry changes them. The same slab_redo serves the forward path and
 * recovery.
 */
#ifndef SMALL_SMALL_SLAB_H
#define SMALL_SMALL_SLAB_H

#include "pmem/media.h"
#include "small/small_class.h"

/** One change of one block, as a lane entry tells it. */
struct slab_change {
    struct pm_slab_line *lines; /* the slab's */
    uint64_t lsn;
    uint32_t slab_number, block;
    uint8_t class_index;
    bool alloc, format;
};

static inline uint32_t slab_line_of(uint32_t block)
{
    return block / SLAB_LINE_BITS;
}
static inline uint32_t slab_word_of(uint32_t block)
{
    return block % SLAB_LINE_BITS / 64;
}
static inline uint64_t slab_bit_of(uint32_t block)
{
    return 1ull << (block % 64);
}
static inline bool slab_block_is_allocated(const struct pm_slab_line *lines, uint32_t block)
{
    return (__atomic_load_n(&lines[slab_line_of(block)].bits[slab_word_of(block)], __ATOMIC_RELAXED) &
            slab_bit_of(block)) != 0;
}

#define SLAB_UNFORMATTED 255u
/** Class that a line says its slab has, unchecked; SLAB_UNFORMATTED if it was never formatted. */
static inline unsigned slab_line_class(const struct pm_slab_line *line)
{
    return (unsigned)((__atomic_load_n(&line->tag, __ATOMIC_RELAXED) & 255) - 1) & 255;
}

/** Make the change on every line of the slab that is older than it; lines that are newer, or as new, stay. Stores in place,
 *  nothing is written back. Idempotent, and any prefix of its stores to a line is repaired by doing it again. */
void slab_redo(const struct media *m, const struct slab_change *c);
/** Recovery, before slab_redo, for the line of the change if it is older and the change does not format: take back or complete
 *  the first half of this very change. False if the line's state cannot come from a crash. */
bool slab_line_explained(const struct media *m, const struct slab_change *c);
/** Does one of the first `count` lines say that it reflects an entry that was never written? Then no change would reach it. */
bool slab_is_ahead(const struct pm_slab_line *lines, uint32_t count, uint64_t newest_lsn);
/** Does line `line_number` of slab `slab_number` say what only this library can have written? */
bool slab_line_is_valid(const struct pm_slab_line *line, uint32_t slab_number, uint32_t line_number);
/** The tag that a line with these bits and this lsn has to have. */
uint64_t slab_line_tag(const struct pm_slab_line *line, unsigned class_index, uint32_t slab_number,
                       uint32_t line_number);
/** All lines that count valid and of one class; bits beyond the last block clear. ret_allocated: set bits. */
bool slab_is_valid(const struct pm_slab_line *lines, uint32_t slab_number, uint32_t *ret_allocated);

#endif
