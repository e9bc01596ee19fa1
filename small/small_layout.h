/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * small_layout.h -- small segments on media.
 *
 * A segment of kind SMALL:
 *
 *     0        4,096                                   first_slab
 *     +--------+-----------------------------------+---+-----------+-----------+--
 *     | header | lines of slab 0 | lines of slab 1 |...|  slab 0   |  slab 1   | ...
 *     +--------+-----------------------------------+---+-----------+-----------+--
 *               11 lines of 64 bytes each               64 KiB each, blocks side by side, no headers
 *
 * The lines stand away from the slabs, so that open reads them in one sweep and an overrun block does not reach them.
 */
#ifndef SMALL_SMALL_LAYOUT_H
#define SMALL_SMALL_LAYOUT_H

#include <stdint.h>

#include "segment/segment_layout.h"

#define SLAB_BYTES      SEGMENT_UNIT_BYTES
#define SLAB_LINES      11u /* enough bits for the 4,096 blocks of the smallest class */
#define SLAB_LINE_WORDS 6u
#define SLAB_LINE_BITS  (SLAB_LINE_WORDS * 64u)
#define SLAB_META_BYTES (SLAB_LINES * 64u)
_Static_assert(SLAB_META_BYTES == SEGMENT_UNIT_META_BYTES, "the line area has room for each slab's lines");

/*
 * One line of a slab's metadata: which of 384 consecutive blocks are allocated.
 *
 *   0   8  lsn   of the last entry that the line reflects
 *   8   8  tag   bits 0..7: size class + 1; 8..15: line number; 16..31: slab number; 32..63: checksum of lsn, class and bits
 *  16  48  bits  1 = allocated
 *
 * All zero: never formatted. Else valid if and only if the tag names this line and slab and the checksum fits.
 * Stored in the order bits, tag, lsn, in place, after the entry is durable and without write-back. A line that a crash
 * left between two of these stores is told from a damaged one by the first entry that is newer than it (slab_line_explained).
 * The lines of a slab count only up to the last one that its class needs.
 */
struct pm_slab_line {
    uint64_t lsn;
    uint64_t tag;
    uint64_t bits[SLAB_LINE_WORDS];
};
_Static_assert(sizeof(struct pm_slab_line) == 64, "one line: a crash keeps a prefix of the stores to it");

static inline uint32_t small_slabs_of(uint64_t segment_size)
{
    return segment_units_of(segment_size);
}
static inline uint64_t small_first_slab_of(uint64_t segment_size)
{
    return segment_data_of(segment_size);
}

#endif
