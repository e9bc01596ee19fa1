/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_lost.c -- allocated blocks that nothing leads to, for memcheck's report at close.
 *
 * Every block had an owner when it was allocated. It is lost when the owner is overwritten, or freed with the block that it lies in,
 * while it names the block. The library does not know where owners are, so the search is conservative: from the root block on, each
 * aligned 16 bytes may be a pa_pptr, each aligned 8 bytes a pa_off, and a pointer into a block counts as one to it. Whoever names
 * blocks in other ways (by 4 bytes, say) suppresses the report.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "pool/pool_watch.h"

#define TOLD_MAX 100u

struct found {
    pa_off off;
    uint64_t bytes;
    bool reached;
};

struct search {
    pa_pool *pool;
    struct found *blocks; /* by offset */
    size_t n, capacity;
    size_t *todo; /* indexes of blocks that were reached and not read yet */
    size_t todo_n;
};

static int add(pa_pptr block, size_t usable_size, void *arg)
{
    struct search *s = arg;
    if (s->n == s->capacity) {
        size_t capacity = s->capacity != 0 ? s->capacity * 2 : 256;
        struct found *blocks = realloc(s->blocks, capacity * sizeof *blocks);
        if (blocks == NULL)
            return PA_ENOMEM;
        s->blocks = blocks;
        s->capacity = capacity;
    }
    s->blocks[s->n++] = (struct found){.off = pa_off_of(s->pool, block), .bytes = usable_size};
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return (x->off > y->off) - (x->off < y->off);
}

static void reach(struct search *s, pa_off off)
{
    size_t low = 0, high = s->n; /* the last block that begins at off or before is in [low, high) */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (s->blocks[middle].off <= off)
            low = middle;
        else
            high = middle;
    }
    struct found *block = &s->blocks[low];
    if (off < block->off || off - block->off >= block->bytes || block->reached)
        return;
    block->reached = true;
    s->todo[s->todo_n++] = low;
}

static void read_block(struct search *s, const struct found *block)
{
    const uint64_t *word = pa_off_direct(s->pool, block->off);
    size_t words = block->bytes / sizeof *word;
    valgrind_mark_filled(word, block->bytes); /* nobody else looks any more */
    for (size_t i = 0; i < words; i++) {
        reach(s, word[i]);
        pa_pptr p = {word[i], i + 1 < words ? word[i + 1] : 0};
        if (i % 2 == 0 && pa_direct(s->pool, p) != NULL)
            reach(s, pa_off_of(s->pool, p));
    }
}

static void tell(const struct search *s)
{
    uint64_t lost = 0, bytes = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct found *block = &s->blocks[i];
        if (block->reached)
            continue;
        pa_pptr p = pa_off_pptr(s->pool, block->off);
        lost++;
        bytes += block->bytes;
        if (lost > TOLD_MAX)
            continue;
        VALGRIND_TELL(
            "libpallocator: segment %llu offset %llu, %llu bytes: allocated, but nothing in the pool points to it\n",
            (unsigned long long)p.segment, (unsigned long long)p.offset, (unsigned long long)block->bytes);
        valgrind_report_lost(pa_off_direct(s->pool, block->off), block->bytes);
    }
    if (lost != 0)
        VALGRIND_TELL("libpallocator: %llu bytes in %llu blocks are lost in the pool in %s\n",
                      (unsigned long long)bytes, (unsigned long long)lost, s->pool->dir.path);
}

void pool_watch_lost(pa_pool *pool)
{
    struct search s = {.pool = pool};
    struct error_text before;
    if (pool->read_only || !valgrind_is_memcheck())
        return;
    error_save(&before);
    if (pa_foreach(pool, add, &s) == 0 && s.n != 0)
        s.todo = malloc(s.n * sizeof *s.todo);
    if (s.todo != NULL) { /* else there is no memory, or damage: not what this is about */
        qsort(s.blocks, s.n, sizeof *s.blocks, compare);
        reach(&s, pa_off_of(pool, pool_root_line(pool)->root));
        while (s.todo_n > 0)
            read_block(&s, &s.blocks[s.todo[--s.todo_n]]);
        tell(&s);
    }
    free(s.todo);
    free(s.blocks);
    error_restore(&before);
}
