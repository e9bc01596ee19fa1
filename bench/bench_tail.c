/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_tail.c -- latency of single pa_allocate calls in a pool that grows: blocks log-uniform from 64 B to 1 MiB are allocated and
 * never freed until they make gib GiB; pools of that size are made one after the other and their calls counted together.
 *
 * Each call stands between two clock_gettime(CLOCK_MONOTONIC); "clock ns" is the median of two in a row, and is contained in every
 * figure. written: the application writes each block after its allocation, outside of the clocks. Percentiles are reported where
 * at least one call lies above them. histograms=FOLDER: a file per case, with lines "ns calls".
 *
 * Options: gib=N (default 4), pools=N (default 3), histograms=FOLDER.
 */
#include <pallocator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/directory.h"
#include "bench/harness.h"
#include "bench/owner_array.h"

enum { DOUBLINGS = 14 /* 64 B .. 1 MiB */, CLOCK_SAMPLES = 10001, BINS_PER_DECADE = 10, BINS = 10 * BINS_PER_DECADE };

#define GIB ((double)(1ull << 30))

struct variant {
    const char *name;
    unsigned flags;
    bool written;
};

struct samples {
    uint32_t *ns;
    size_t count, room;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool is_smoke(void)
{
    return bench_option("smoke", NULL) != NULL;
}

static double pool_bytes(void)
{
    return strtod(bench_option("gib", is_smoke() ? "0.05" : "4"), NULL) * GIB;
}

static bool add_sample(struct samples *s, uint64_t ns)
{
    if (s->count == s->room) {
        size_t room = s->room == 0 ? 1 << 16 : s->room * 2;
        uint32_t *more = realloc(s->ns, room * sizeof *more);
        if (more == NULL)
            return false;
        s->ns = more;
        s->room = room;
    }
    s->ns[s->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
    return true;
}

static size_t pick_size(uint64_t *random)
{
    uint64_t r = bench_random(random);
    size_t base = (size_t)64 << ((r >> 32) % DOUBLINGS);
    return base + (r & 0xffffffffu) % base;
}

/* Fill one pool; false with the reason in pa_errormsg. */
static bool grow(pa_pool *pool, bool written, uint64_t seed, struct samples *s)
{
    struct owner_array owners;
    double bytes = 0;
    for (size_t i = 0; bytes < pool_bytes(); i++) {
        size_t size = pick_size(&seed);
        if (i % OWNER_ARRAY_CHUNK == 0 && owner_array_open(&owners, pool, i + 1) != 0)
            return false;
        pa_pptr *owner = owner_at(&owners, i);
        uint64_t start = now_ns();
        int code = pa_allocate(pool, owner, size);
        uint64_t end = now_ns();
        if (code != 0 || !add_sample(s, end - start))
            return false;
        if (written)
            memset(pa_direct(pool, *owner), 1, size);
        bytes += (double)size;
    }
    return true;
}

static bool fill_pool(const struct variant *v, uint64_t seed, struct samples *s)
{
    char dir[512];
    pa_pool *pool;
    pa_options options;
    pa_options_init(&options);
    options.flags = v->flags;
    options.segment_size = is_smoke() ? 16 << 20 : 0;
    snprintf(dir, sizeof dir, "%s/tail", bench_directory());
    if (pa_create(dir, &options, &pool) != 0)
        return false;
    bool right = grow(pool, v->written, seed, s);
    pa_close(pool);
    directory_remove(dir);
    return right;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Median of two readings in a row. */
static double clock_cost(void)
{
    static uint32_t ns[CLOCK_SAMPLES];
    for (size_t i = 0; i < CLOCK_SAMPLES; i++) {
        uint64_t start = now_ns();
        ns[i] = (uint32_t)(now_ns() - start);
    }
    qsort(ns, CLOCK_SAMPLES, sizeof *ns, by_value);
    return ns[CLOCK_SAMPLES / 2];
}

/* s is sorted. One bin per tenth of a decade, by its lower end. */
static void write_histogram(const struct variant *v, const struct samples *s)
{
    char path[512];
    const char *folder = bench_option("histograms", NULL);
    if (folder == NULL)
        return;
    snprintf(path, sizeof path, "%s/%s", folder, v->name);
    FILE *f = fopen(path, "w");
    if (f == NULL)
        return;
    double low = 1;
    size_t at = 0;
    for (int bin = 0; bin < BINS; bin++, low *= 1.2589254117941673) {
        size_t from = at;
        while (at < s->count && s->ns[at] < low * 1.2589254117941673)
            at++;
        if (at > from)
            fprintf(f, "%.0f %zu\n", low, at - from);
    }
    fclose(f);
}

static void report(struct bench *b, const struct variant *v, struct samples *s)
{
    static const struct {
        const char *name;
        double above; /* share of the calls that take longer */
    } percentiles[] = {{"2 median ns", 0.5},
                       {"3 99 ns", 0.01},
                       {"4 99.9 ns", 0.001},
                       {"5 99.99 ns", 0.0001},
                       {"6 99.999 ns", 0.00001}};
    qsort(s->ns, s->count, sizeof *s->ns, by_value);
    bench_value(b, "1 calls", (double)s->count);
    for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
        size_t above = (size_t)((double)s->count * percentiles[i].above);
        if (above > 0)
            bench_value(b, percentiles[i].name, s->ns[s->count - 1 - above]);
    }
    bench_value(b, "7 maximum ns", s->ns[s->count - 1]);
    bench_value(b, "8 clock ns", clock_cost());
    write_histogram(v, s);
}

static void run(struct bench *b)
{
    const struct variant *v = bench_case_of(b)->params;
    struct samples s = {0};
    unsigned long pools = strtoul(bench_option("pools", is_smoke() ? "1" : "3"), NULL, 10);
    while (bench_more(b, 1))
        for (unsigned long i = 0; i < pools; i++)
            if (!fill_pool(v, i, &s)) {
                bench_fail(b, pa_errormsg());
                free(s.ns);
                return;
            }
    report(b, v, &s);
    free(s.ns);
}

void bench_register_all(void)
{
    static const struct variant variants[] = {
        {"reserved, untouched", 0, false},
        {"reserved, written", 0, true},
        {"sparse, untouched", PA_SPARSE, false},
        {"sparse, written", PA_SPARSE, true},
#ifdef PA_NO_BACKGROUND
        {"reserved, untouched, no background", PA_NO_BACKGROUND, false},
        {"reserved, written, no background", PA_NO_BACKGROUND, true},
        {"sparse, untouched, no background", PA_SPARSE | PA_NO_BACKGROUND, false},
        {"sparse, written, no background", PA_SPARSE | PA_NO_BACKGROUND, true},
#endif
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        char name[96];
        snprintf(name, sizeof name, "pallocator/%s", variants[i].name);
        bench_register(&(struct bench_case){.name = name, .params = &variants[i], .fixed_ops = 1, .run = run});
    }
}
