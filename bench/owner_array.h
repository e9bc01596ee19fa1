/* SPDX-License-Identifier: BSD-3-Clause */
/* owner_array.h -- a long array of owner pointers in a pool: the root block names chunks, a chunk holds owners. */
#ifndef BENCH_OWNER_ARRAY_H
#define BENCH_OWNER_ARRAY_H

#include <pallocator.h>
#include <stddef.h>

enum { OWNER_ARRAY_CHUNK = 4096 /* owners, 64 KiB */, OWNER_ARRAY_CHUNKS = 4096 };

struct owner_array {
    pa_pool *pool;
    pa_pptr *chunks;
};

/** Find the array, adding chunks of null owners until it holds count (at most 16 M). An error code of the library. */
int owner_array_open(struct owner_array *o, pa_pool *pool, size_t count);

static inline pa_pptr *owner_at(const struct owner_array *o, size_t i)
{
    return (pa_pptr *)pa_direct(o->pool, o->chunks[i / OWNER_ARRAY_CHUNK]) + i % OWNER_ARRAY_CHUNK;
}

#endif
