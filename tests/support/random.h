/* SPDX-License-Identifier: BSD-3-Clause */
/* random.h -- repeatable random numbers for tests (splitmix64). */
#ifndef TESTS_SUPPORT_RANDOM_H
#define TESTS_SUPPORT_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/** 0 .. bound - 1. */
static inline uint64_t random_below(struct random *r, uint64_t bound)
{
    return random_next(r) % bound;
}

/** A block size of the small allocator: mostly little, each power of two equally likely. */
static inline size_t random_size(struct random *r, size_t max)
{
    size_t top = 16;
    while (top < max && random_below(r, 4) != 0)
        top *= 2;
    if (top > max)
        top = max;
    return 1 + (size_t)random_below(r, top);
}

/** min .. max, each power of two equally likely. */
static inline uint64_t random_log(struct random *r, uint64_t min, uint64_t max)
{
    unsigned bits = 0;
    while ((max / min) >> (bits + 1) != 0)
        bits++;
    uint64_t low = min << random_below(r, bits + 1), high = low > max / 2 ? max : 2 * low - 1;
    return low + random_below(r, high - low + 1);
}

#endif
