/* SPDX-License-Identifier: BSD-3-Clause */
/* lane_layout.h -- the redo log on media: a ring of 64-byte entries per lane, in the pool file. */
#ifndef LOG_LANE_LAYOUT_H
#define LOG_LANE_LAYOUT_H

#include <stdint.h>

enum lane_op {
    LANE_OP_NONE,
    LANE_OP_DONE,        /* everything before it is finished: no owner pointer is redone */
    LANE_OP_SMALL_ALLOC, /* class; LANE_FLAG_FORMAT */
    LANE_OP_SMALL_FREE,  /* class; LANE_FLAG_REPLACE */
    LANE_OP_SMALL_HOLE,  /* block: first byte of a free slab, whose space may go back to the file system */
    LANE_OP_BIG_ALLOC,   /* changes of the block index */
    LANE_OP_BIG_FREE,    /* the same; LANE_FLAG_REPLACE */
    LANE_OP_BIG_CHANGE,  /* changes of the block index that concern no owner pointer */
    LANE_OP_HUGE_ALLOC,
    LANE_OP_HUGE_FREE, /* LANE_FLAG_REPLACE */
    LANE_OP_COUNT
};

#define LANE_FLAG_FORMAT  1u /* the entry also formats the block's slab to its class */
#define LANE_FLAG_REPLACE 2u /* the owner gets the block that the staging owner holds, instead of null */
#define LANE_FLAG_HOLE    4u /* the free pair of a big entry is a hole */

/*
 * One entry, one line, written whole by a non-temporal copy. A line arrives as any prefix of its words, so an entry is valid
 * if and only if its checksum fits its first seven words. A valid entry is committed.
 *
 *   off size
 *     0    8  lsn       ascending along the ring; 0 = never written
 *     8    1  op        enum lane_op
 *     9    1  class     size class (small)
 *    10    1  flags     LANE_FLAG_...
 *    11    1  changes   changes of the block index, 0 .. 3 (big)
 *    12    2  staging   core line whose staging owner holds the replacement
 *    14    2  zero
 *    16    8  block     pa_off of the block
 *    24    8  dst       pa_off of the owner pointer
 *    32   24  argument  changes of the block index, see big/big_layout.h, which also uses class and the last two bytes of
 *                       the second word; else zero
 *    56    8  checksum  XXH3 of bytes 0..55
 *
 * Owner and lock: the lane's core. Durable: the fence after the copy. After a crash: redone if the line it changes is older.
 */
struct pm_lane_entry {
    uint64_t lsn;
    uint8_t op, class_index, flags, changes;
    uint16_t staging, zero;
    uint64_t block;
    uint64_t dst;
    uint8_t argument[24];
    uint64_t checksum;
};
_Static_assert(sizeof(struct pm_lane_entry) == 64, "an entry is one line");

#endif
