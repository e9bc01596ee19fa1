/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * small_class.h -- size classes up to 16 KiB: 16, 32, 48, 64, then four steps per doubling, so that rounding wastes at most
 * 20 % above 64 bytes. Slabs are aligned to 64 KiB, so a block whose size is a multiple of 64 starts a line and a power of two
 * is naturally aligned.
 */
#ifndef SMALL_SMALL_CLASS_H
#define SMALL_SMALL_CLASS_H

#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "small/small_layout.h"

#define SMALL_USER_CLASSES 36u
#define SMALL_SIZE_MAX     16384u
/* Two more classes for the library's own blocks, in slabs of their own: what callers cannot see, count or free. */
#define SMALL_CLASS_LEAF 36u /* leaves of block indexes */
#define SMALL_CLASS_INDEX                                                                                              \
    37u /* header blocks of block indexes; their first two lines are zero when the owner names them */
#define SMALL_CLASSES 38u
/* What a free slab's lines say while its space is given back to the file system: no blocks at all. */
#define SMALL_CLASS_HOLE  38u
#define SMALL_CLASS_TAGS  39u
#define SMALL_LEAF_BYTES  768u
#define SMALL_INDEX_BYTES 2560u
#define SMALL_BLANK_BYTES 128u /* see small_alloc_blank */

/** Class of a size, 1 .. SMALL_SIZE_MAX. */
static inline unsigned small_class_of(size_t size)
{
    if (size <= 64)
        return (unsigned)((size + 15) / 16) - 1;
    unsigned doubling = log2_floor(size - 1);
    return 4 + (doubling - 6) * 4 + (unsigned)((size - 1) >> (doubling - 2) & 3);
}
static inline uint32_t small_class_bytes(unsigned class_index)
{
    if (class_index < 4)
        return (class_index + 1) * 16;
    if (__builtin_expect(class_index >= SMALL_USER_CLASSES, 0))
        return class_index == SMALL_CLASS_LEAF ? SMALL_LEAF_BYTES : SMALL_INDEX_BYTES;
    unsigned doubling = 6 + (class_index - 4) / 4;
    return (5 + (class_index - 4) % 4) << (doubling - 2);
}
static inline uint32_t small_class_blocks(unsigned class_index)
{
    return class_index == SMALL_CLASS_HOLE ? 0 : SLAB_BYTES / small_class_bytes(class_index);
}
static inline uint32_t small_class_lines(unsigned class_index)
{
    return class_index == SMALL_CLASS_HOLE ? 1
                                           : (small_class_blocks(class_index) + SLAB_LINE_BITS - 1) / SLAB_LINE_BITS;
}

#endif
