/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * owners.h -- a table of owner pointers in the pool, and the comparison of all owners with all blocks.
 *
 * The root block names tables of 1,024 owners each. A pool is whole if the blocks that pa_foreach visits are exactly the
 * root, the tables, what the owners name and what the test added: nothing lost, nothing leaked, no overlap.
 */
#ifndef TESTS_SUPPORT_OWNERS_H
#define TESTS_SUPPORT_OWNERS_H

#include <pallocator.h>
#include <stdint.h>

#define OWNERS_PER_TABLE  1024u
#define OWNERS_TABLES_MAX 64u

struct owners {
    pa_pool *pool;
    pa_pptr *tables;
    size_t count;
};

/** Find the table of count owners in the pool, or make it, all null. 0 or a negative enum pa_error. */
int owners_open(struct owners *o, pa_pool *pool, size_t count);
/** A new pool (pool_make) with a table of count owners. */
pa_pool *owners_make(struct owners *o, const char *dir, size_t count);
/** Close and check the pool and open it again; the same owners, verified. Returns the new handle. */
pa_pool *owners_reopen(struct owners *o, const char *dir);
/** The i-th owner. */
pa_pptr *owners_at(const struct owners *o, size_t i);
/** The i-th owner that is alone on its line: i * 4, so count / 4 of these. */
static inline pa_pptr *owners_at_line(const struct owners *o, size_t i)
{
    return owners_at(o, i * 4);
}

struct block {
    pa_off off;
    uint64_t size; /* usable bytes; 0 = do not compare */
};

/** A growing list of blocks. */
struct blocks {
    struct block *at;
    size_t n, capacity;
};

void blocks_add(struct blocks *b, pa_off off, uint64_t size);
void blocks_free(struct blocks *b);
/** Sort by address. */
void blocks_sort(struct blocks *b);
/** Every block that pa_foreach visits; its result. */
int blocks_collect(struct blocks *b, pa_pool *pool);

/** Add the root, the tables and what the owners name. */
void owners_add_blocks(const struct owners *o, struct blocks *b);
/** Compare what pa_foreach visits with expected (which gets sorted): true if equal, in order, without overlap, agreeing
 *  with pa_usable_size and pa_get_stats; else *message (size bytes) says what is wrong. */
bool blocks_are_all(pa_pool *pool, struct blocks *expected, char *message, size_t size);
/** blocks_are_all of just the owners. */
bool owners_are_whole(const struct owners *o, char *message, size_t size);
/** owners_are_whole, or the test ends. */
void owners_verify(const struct owners *o);
/** Free what every owner names. */
int owners_free_all(const struct owners *o);

/** Fill a block so that block_is knows it again. */
void block_fill(void *address, size_t size, uint64_t tag);
bool block_is(const void *address, size_t size, uint64_t tag);

/** Create a pool of segments of 1 MiB without a thread of its own; ends the test on failure. */
pa_pool *pool_make(const char *dir);
/** As pool_make, with a limit. */
pa_pool *pool_make_limited(const char *dir, uint64_t max_size);
/** Open with default options; ends the test on failure. */
pa_pool *pool_reopen(const char *dir);
/** pa_close, then pa_check; ends the test on failure. */
void pool_finish(pa_pool *pool, const char *dir);
/** pa_check; ends the test on failure. */
void pool_check_sound(const char *dir);

#endif
