/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_fragmentation.c -- what pa_defragment gives back to the file system.
 *
 * 2,000 blocks, log-uniform from 32 KiB to 1 MiB, are filled with a pattern. What the last segments have left is given back, so that
 * it counts for nothing below. Then a random 70 % are freed and pa_defragment is asked for all there is. The pool is closed, opened,
 * the survivors are verified, the freed ones allocated again, filled and verified, and the pool is checked.
 *
 *   returned %      fall of the files' st_blocks, of the freed blocks' usable bytes
 *   held / live     st_blocks of all files, the pool file too, over the bytes that were asked for and are not freed
 *
 * Options: blocks=N, segment-size=BYTES.
 */
#include <pallocator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/directory.h"
#include "bench/harness.h"
#include "bench/owner_array.h"

#define SIZE_MIN      ((size_t)32 << 10)
#define DOUBLINGS     5 /* up to 1 MiB */
#define FREED_PERCENT 70
#define MIB           (1024.0 * 1024.0)

struct block {
    size_t bytes;
    bool freed;
};

struct state {
    char dir[512];
    pa_options options;
    pa_pool *pool;
    struct owner_array owners;
    struct block *blocks;
    size_t count;
    uint64_t live;  /* bytes asked for and not freed */
    uint64_t freed; /* usable bytes of the freed blocks */
    const char *error;
};

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static bool failed(struct state *s, const char *what)
{
    static char sentence[512];
    if (s->error == NULL) {
        snprintf(sentence, sizeof sentence, "%s: %s", what, pa_errormsg());
        s->error = sentence;
    }
    return false;
}

static uint64_t word_of(size_t block, size_t word)
{
    return ((uint64_t)block << 32 ^ word) * 0x9e3779b97f4a7c15u;
}

static bool fill(struct state *s, size_t i)
{
    pa_pptr *owner = owner_at(&s->owners, i);
    if (pa_allocate(s->pool, owner, s->blocks[i].bytes) != 0)
        return failed(s, "allocate");
    uint64_t *words = pa_direct(s->pool, *owner);
    for (size_t w = 0; w < s->blocks[i].bytes / sizeof *words; w++)
        words[w] = word_of(i, w);
    s->blocks[i].freed = false;
    s->live += s->blocks[i].bytes;
    return true;
}

static bool holds(struct state *s, size_t i)
{
    const uint64_t *words = pa_direct(s->pool, *owner_at(&s->owners, i));
    for (size_t w = 0; w < s->blocks[i].bytes / sizeof *words; w++)
        if (words[w] != word_of(i, w))
            return failed(s, "a block has other contents");
    return true;
}

/* Every block that is not freed has its contents. */
static bool verify(struct state *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (!s->blocks[i].freed && !holds(s, i))
            return false;
    return true;
}

static bool create(struct state *s)
{
    uint64_t random = 42;
    s->blocks = calloc(s->count, sizeof *s->blocks);
    if (s->blocks == NULL || pa_create(s->dir, &s->options, &s->pool) != 0)
        return failed(s, "create");
    if (owner_array_open(&s->owners, s->pool, s->count) != 0)
        return failed(s, "owners");
    for (size_t i = 0; i < s->count; i++) {
        uint64_t r = bench_random(&random);
        size_t base = SIZE_MIN << ((r >> 32) % DOUBLINGS);
        s->blocks[i].bytes = base + (r & 0xffffffffu) % base / 8 * 8;
        if (!fill(s, i))
            return false;
    }
    return true;
}

/* Free a random FREED_PERCENT of the blocks, in random order. */
static bool free_most(struct state *s)
{
    uint64_t random = 7;
    for (size_t left = s->count * FREED_PERCENT / 100; left > 0;) {
        size_t i = bench_random(&random) % s->count;
        if (s->blocks[i].freed)
            continue;
        s->freed += pa_usable_size(s->pool, *owner_at(&s->owners, i));
        if (pa_deallocate(s->pool, owner_at(&s->owners, i)) != 0)
            return failed(s, "free");
        s->blocks[i].freed = true;
        s->live -= s->blocks[i].bytes;
        left--;
    }
    return true;
}

static bool defragment(struct state *s, uint64_t *ret_released, double *ret_ms)
{
    double start = now_ms();
    if (pa_defragment(s->pool, UINT64_MAX, ret_released) != 0)
        return failed(s, "defragment");
    *ret_ms = now_ms() - start;
    return true;
}

static bool reopen(struct state *s)
{
    int code = pa_close(s->pool);
    s->pool = NULL;
    if (code != 0 || pa_open(s->dir, &s->options, &s->pool) != 0 ||
        owner_array_open(&s->owners, s->pool, s->count) != 0)
        return failed(s, "reopen");
    return true;
}

static bool fill_again(struct state *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->blocks[i].freed && !fill(s, i))
            return false;
    return true;
}

static bool is_sound(struct state *s)
{
    int code = pa_close(s->pool);
    s->pool = NULL;
    return code == 0 && pa_check(s->dir, NULL) == 0 ? true : failed(s, "check");
}

static double held_per_live(const struct state *s)
{
    return (double)directory_resident_bytes(s->dir) / (double)s->live;
}

static void measure(struct bench *b, struct state *s)
{
    uint64_t released = 0;
    double ms = 0;
    if (!create(s) || !defragment(s, &released, &ms))
        return;
    uint64_t held = directory_resident_bytes(s->dir);
    bench_value(b, "1 live MiB", (double)s->live / MIB);
    if (!free_most(s))
        return;
    bench_value(b, "2 freed MiB", (double)s->freed / MIB);
    bench_value(b, "3 held / live before", held_per_live(s));
    if (!defragment(s, &released, &ms))
        return;
    uint64_t returned = held - directory_resident_bytes(s->dir);
    bench_value(b, "4 returned %", 100.0 * (double)returned / (double)s->freed);
    bench_value(b, "5 reported %", 100.0 * (double)released / (double)s->freed);
    bench_value(b, "6 held / live after", held_per_live(s));
    bench_value(b, "7 defragment ms", ms);
    uint64_t segments = directory_files(s->dir, "segment-");
    if (!reopen(s) || !verify(s) || !fill_again(s) || !verify(s))
        return;
    bench_value(b, "8 held / live, refilled", held_per_live(s));
    bench_value(b, "9 new segments", (double)directory_files(s->dir, "segment-") - (double)segments);
    is_sound(s);
}

static void run(struct bench *b)
{
    bool smoke = bench_option("smoke", NULL) != NULL;
    struct state s = {.count = strtoul(bench_option("blocks", smoke ? "100" : "2000"), NULL, 10)};
    pa_options_init(&s.options);
    s.options.flags = (unsigned)bench_argument(b);
    s.options.segment_size = strtoull(bench_option("segment-size", smoke ? "16777216" : "0"), NULL, 10);
    snprintf(s.dir, sizeof s.dir, "%s/fragmentation", bench_directory());
    while (bench_more(b, 1))
        measure(b, &s);
    pa_close(s.pool);
    free(s.blocks);
    directory_remove(s.dir);
    if (s.error != NULL)
        bench_fail(b, s.error);
}

void bench_register_all(void)
{
    bench_register(&(struct bench_case){.name = "pallocator/reserved", .fixed_ops = 1, .run = run});
    bench_register(&(struct bench_case){.name = "pallocator/sparse",
                                        .argument = PA_SPARSE,
                                        .fixed_ops = 1,
                                        .run = run});
}
