/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/owners.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "pool/pool.h"
#include "tests/support/run.h"

#define TABLE_BYTES (OWNERS_PER_TABLE * sizeof(pa_pptr))

int owners_open(struct owners *o, pa_pool *pool, size_t count)
{
    pa_pptr root;
    int r = pa_root(pool, OWNERS_TABLES_MAX * sizeof(pa_pptr), &root);
    if (r != 0)
        return r;
    o->pool = pool;
    o->tables = pa_direct(pool, root);
    o->count = count;
    size_t tables = (count + OWNERS_PER_TABLE - 1) / OWNERS_PER_TABLE;
    if (tables > OWNERS_TABLES_MAX)
        return error_set(PA_EINVAL, "%zu owners are more than the tests can hold", count);
    for (size_t i = 0; i < tables; i++) {
        if (!pa_is_null(o->tables[i]))
            continue;
        r = pa_allocate(pool, &o->tables[i], TABLE_BYTES);
        if (r != 0)
            return r;
        void *table = pa_direct(pool, o->tables[i]);
        media_set(pool_media(pool), table, 0, TABLE_BYTES);
        pa_persist(pool, table, TABLE_BYTES);
    }
    return 0;
}

pa_pptr *owners_at(const struct owners *o, size_t i)
{
    pa_pptr *table = pa_direct(o->pool, o->tables[i / OWNERS_PER_TABLE]);
    return &table[i % OWNERS_PER_TABLE];
}

void blocks_add(struct blocks *b, pa_off off, uint64_t size)
{
    if (b->n == b->capacity) {
        b->capacity = b->capacity == 0 ? 1024 : 2 * b->capacity;
        b->at = realloc(b->at, b->capacity * sizeof *b->at);
        EXPECT(b->at != NULL, "no memory");
    }
    b->at[b->n++] = (struct block){off, size};
}

void blocks_free(struct blocks *b)
{
    free(b->at);
    *b = (struct blocks){0};
}

static int block_order(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

void blocks_sort(struct blocks *b)
{
    if (b->n > 1)
        qsort(b->at, b->n, sizeof *b->at, block_order);
}

struct collector {
    pa_pool *pool;
    struct blocks *blocks;
};

static int collect(pa_pptr block, size_t usable_size, void *arg)
{
    struct collector *c = arg;
    blocks_add(c->blocks, pa_off_of(c->pool, block), usable_size);
    return 0;
}

int blocks_collect(struct blocks *b, pa_pool *pool)
{
    struct collector c = {pool, b};
    return pa_foreach(pool, collect, &c);
}

void owners_add_blocks(const struct owners *o, struct blocks *b)
{
    blocks_add(b, pa_off_of(o->pool, pa_pptr_of(o->pool, o->tables)), 0);
    for (size_t i = 0; i < OWNERS_TABLES_MAX; i++)
        if (!pa_is_null(o->tables[i]))
            blocks_add(b, pa_off_of(o->pool, o->tables[i]), 0);
    for (size_t i = 0; i < o->count; i++)
        if (!pa_is_null(*owners_at(o, i)))
            blocks_add(b, pa_off_of(o->pool, *owners_at(o, i)), 0);
}

static bool block_at_agrees(pa_pool *pool, const struct blocks *found, size_t i, char *message, size_t size)
{
    const struct block *f = &found->at[i];
    if (i > 0 && found->at[i - 1].off + found->at[i - 1].size > f->off) {
        snprintf(message, size, "blocks %#" PRIx64 " and %#" PRIx64 " overlap", found->at[i - 1].off, f->off);
        return false;
    }
    size_t usable = pa_usable_size(pool, pa_off_pptr(pool, f->off));
    if (usable != f->size || usable == 0) {
        snprintf(message, size, "block %#" PRIx64 ": pa_foreach says %" PRIu64 " bytes, pa_usable_size %zu", f->off,
                 f->size, usable);
        return false;
    }
    return true;
}

static bool stats_agree(pa_pool *pool, uint64_t blocks, uint64_t bytes, char *message, size_t size)
{
    pa_stats stats;
    int r = pa_get_stats(pool, &stats);
    if (r != 0) {
        snprintf(message, size, "pa_get_stats: %s", pa_errormsg());
        return false;
    }
    if (stats.allocated_blocks == blocks && stats.allocated_bytes == bytes)
        return true;
    snprintf(message, size, "pa_get_stats says %" PRIu64 " blocks, %" PRIu64 " bytes; pa_foreach %" PRIu64 ", %" PRIu64,
             stats.allocated_blocks, stats.allocated_bytes, blocks, bytes);
    return false;
}

static bool found_are_expected(pa_pool *pool, const struct blocks *found, const struct blocks *expected, char *message,
                               size_t size)
{
    uint64_t bytes = 0;
    size_t e = 0;
    for (size_t i = 0; i < found->n; i++) {
        pa_off off = found->at[i].off;
        if (e > 0 && e < expected->n && expected->at[e].off == expected->at[e - 1].off) {
            snprintf(message, size, "block %#" PRIx64 " has two owners", expected->at[e].off);
            return false;
        }
        if (e < expected->n && expected->at[e].off < off) {
            snprintf(message, size, "lost: an owner names %#" PRIx64 ", which is not allocated", expected->at[e].off);
            return false;
        }
        if (e == expected->n || expected->at[e].off > off) {
            snprintf(message, size, "leaked: block %#" PRIx64 " (%" PRIu64 " bytes) has no owner", off,
                     found->at[i].size);
            return false;
        }
        if (expected->at[e].size != 0 && expected->at[e].size != found->at[i].size) {
            snprintf(message, size, "block %#" PRIx64 " has %" PRIu64 " bytes, expected %" PRIu64, off,
                     found->at[i].size, expected->at[e].size);
            return false;
        }
        if (!block_at_agrees(pool, found, i, message, size))
            return false;
        bytes += found->at[i].size;
        e++;
    }
    if (e < expected->n) {
        snprintf(message, size, "lost: an owner names %#" PRIx64 ", which is not allocated", expected->at[e].off);
        return false;
    }
    return stats_agree(pool, found->n, bytes, message, size);
}

bool blocks_are_all(pa_pool *pool, struct blocks *expected, char *message, size_t size)
{
    struct blocks found = {0};
    bool same = blocks_collect(&found, pool) == 0;
    if (!same)
        snprintf(message, size, "pa_foreach: %s", pa_errormsg());
    blocks_sort(&found);
    blocks_sort(expected);
    same = same && found_are_expected(pool, &found, expected, message, size);
    blocks_free(&found);
    return same;
}

bool owners_are_whole(const struct owners *o, char *message, size_t size)
{
    struct blocks expected = {0};
    owners_add_blocks(o, &expected);
    bool whole = blocks_are_all(o->pool, &expected, message, size);
    blocks_free(&expected);
    return whole;
}

void owners_verify(const struct owners *o)
{
    char message[256];
    EXPECT(owners_are_whole(o, message, sizeof message), "%s", message);
}

int owners_free_all(const struct owners *o)
{
    for (size_t i = 0; i < o->count; i++) {
        int r = pa_deallocate(o->pool, owners_at(o, i));
        if (r != 0)
            return r;
    }
    return 0;
}

void block_fill(void *address, size_t size, uint64_t tag)
{
    unsigned char *p = address;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t w = tag * 0x9e3779b97f4a7c15u + i;
        memcpy(p + i, &w, sizeof w);
    }
    for (; i < size; i++)
        p[i] = (unsigned char)(tag + i);
}

bool block_is(const void *address, size_t size, uint64_t tag)
{
    const unsigned char *p = address;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t w = tag * 0x9e3779b97f4a7c15u + i;
        if (memcmp(p + i, &w, sizeof w) != 0)
            return false;
    }
    for (; i < size; i++)
        if (p[i] != (unsigned char)(tag + i))
            return false;
    return true;
}

pa_pool *pool_make_limited(const char *dir, uint64_t max_size)
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = 1u << 20;
    o.max_size = max_size;
    o.flags = PA_NO_BACKGROUND; /* so that counts and places are the same each time */
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir, &o, &pool));
    EXPECT(pool != NULL, "no pool");
    return pool;
}

pa_pool *pool_make(const char *dir)
{
    return pool_make_limited(dir, 0);
}

pa_pool *pool_reopen(const char *dir)
{
    pa_pool *pool = NULL;
    CK_OK(pa_open(dir, NULL, &pool));
    EXPECT(pool != NULL, "no pool");
    return pool;
}

void pool_check_sound(const char *dir)
{
    char *report = NULL;
    int r = pa_check(dir, &report);
    EXPECT(r == 0, "pa_check: %s: %s", pa_strerror(r), report == NULL ? "(no report)" : report);
    free(report);
}

void pool_finish(pa_pool *pool, const char *dir)
{
    CK_OK(pa_close(pool));
    pool_check_sound(dir);
}

pa_pool *owners_make(struct owners *o, const char *dir, size_t count)
{
    pa_pool *pool = pool_make(dir);
    CK_OK(owners_open(o, pool, count));
    return pool;
}

pa_pool *owners_reopen(struct owners *o, const char *dir)
{
    pool_finish(o->pool, dir);
    CK_OK(owners_open(o, pool_reopen(dir), o->count));
    owners_verify(o);
    return o->pool;
}
