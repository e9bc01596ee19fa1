/* SPDX-License-Identifier: BSD-3-Clause */
/* workload.c -- see workload.h. */
#include "bench/workload.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/harness.h"

enum { STRIDE = 617 /* coprime to SUBJECT_SLOTS, and far in lines */, TURN = 100 };

/* What one run shares. One is enough: cases run one after the other. */
static struct run {
    const struct workload *w;
    void *tables[SUBJECT_THREADS];
    uint64_t fences, lines; /* at the start of the loop */
    bool counted;
    const char *error;
} run;

static size_t place(size_t slot)
{
    return slot * STRIDE % SUBJECT_SLOTS;
}

static size_t pick_size(const struct workload *w, uint64_t *random)
{
    if (w->size_min == w->size_max)
        return w->size_min;
    uint64_t r = bench_random(random);
    unsigned doublings = (unsigned)__builtin_ctzll(w->size_max / w->size_min);
    size_t base = w->size_min << ((r >> 32) % doublings);
    return base + (r & 0xffffffffu) % base;
}

static void empty_tables(const struct workload *w, unsigned threads)
{
    for (unsigned t = 0; t < threads; t++)
        for (size_t slot = 0; slot < SUBJECT_SLOTS; slot++)
            if (!w->subject->is_empty(run.tables[t], slot))
                w->subject->free(run.tables[t], slot);
}

static int fill_tables(const struct workload *w, unsigned threads)
{
    uint64_t random = 1;
    for (unsigned t = 0; t < threads; t++)
        for (size_t slot = 0; slot < w->slots; slot++)
            if (w->subject->allocate(run.tables[t], place(slot), pick_size(w, &random)) != 0)
                return -1;
    return 0;
}

static void *setup(const struct bench_case *c)
{
    const struct workload *w = c->params;
    run = (struct run){.w = w};
    for (unsigned t = 0; t < c->threads; t++)
        if ((run.tables[t] = w->subject->table(t)) == NULL)
            run.error = "no owner table";
    if (run.error == NULL && w->pattern == PATTERN_WINDOW && fill_tables(w, c->threads) != 0)
        run.error = "cannot fill the owners";
    run.counted = w->subject->counts != NULL && w->subject->counts(&run.fences, &run.lines);
    return &run;
}

static void teardown(struct bench *b, void *shared)
{
    (void)shared;
    uint64_t fences, lines;
    if (run.counted && run.w->subject->counts(&fences, &lines)) {
        bench_count_per_op(b, "fences", (double)(fences - run.fences));
        bench_count_per_op(b, "lines", (double)(lines - run.lines));
    }
    if (run.error == NULL)
        empty_tables(run.w, bench_threads(b));
}

/* A thread's place in its table. */
struct walk {
    const struct workload *w;
    const struct subject *subject;
    void *table;
    size_t slot;
    uint64_t random;
    int failed;
};

static bool walk_begin(struct bench *b, struct walk *k)
{
    if (run.error != NULL) {
        bench_fail(b, run.error);
        return false;
    }
    *k = (struct walk){.w = run.w,
                       .subject = run.w->subject,
                       .table = run.tables[bench_thread(b)],
                       .random = 1000 + bench_thread(b)};
    return true;
}

static void walk_end(struct bench *b, const struct walk *k)
{
    if (k->failed != 0)
        bench_fail(b, "an operation failed");
}

/* The next slot's place; the walk moves on. */
static size_t step(struct walk *k)
{
    size_t slot = k->slot;
    if (k->w->random_slots)
        slot = bench_random(&k->random) % k->w->slots;
    else
        k->slot = slot + 1 == k->w->slots ? 0 : slot + 1;
    return place(slot);
}

static void run_pair(struct bench *b)
{
    struct walk k;
    if (!walk_begin(b, &k))
        return;
    while (bench_more(b, TURN))
        for (int i = 0; i < TURN; i++) {
            size_t at = step(&k);
            k.failed |= k.subject->allocate(k.table, at, pick_size(k.w, &k.random));
            k.failed |= k.subject->free(k.table, at);
        }
    walk_end(b, &k);
}

static void run_window(struct bench *b)
{
    struct walk k;
    if (!walk_begin(b, &k))
        return;
    while (bench_more(b, TURN))
        for (int i = 0; i < TURN; i++) {
            size_t at = step(&k);
            k.failed |= k.subject->free(k.table, at);
            k.failed |= k.subject->allocate(k.table, at, pick_size(k.w, &k.random));
        }
    walk_end(b, &k);
}

static void run_batch(struct bench *b)
{
    struct walk k;
    if (!walk_begin(b, &k))
        return;
    while (bench_more(b, k.w->slots)) {
        for (unsigned i = 0; i < k.w->slots; i++)
            k.failed |= k.subject->allocate(k.table, step(&k), pick_size(k.w, &k.random));
        for (unsigned i = 0; i < k.w->slots; i++)
            k.failed |= k.subject->free(k.table, step(&k));
    }
    walk_end(b, &k);
}

void workload_register(const char *name, const struct workload *w, unsigned threads)
{
    static void (*const loops[])(struct bench * b) = {
        [PATTERN_PAIR] = run_pair,
        [PATTERN_WINDOW] = run_window,
        [PATTERN_BATCH] = run_batch,
    };
    char full[128];
    struct workload *copy = malloc(sizeof *copy); /* lives as long as the program */
    if (copy == NULL)
        return;
    *copy = *w;
    snprintf(full, sizeof full, "%s/%s", w->subject->name, name);
    bench_register(&(struct bench_case){.name = full,
                                        .threads = threads,
                                        .params = copy,
                                        .setup = setup,
                                        .run = loops[w->pattern],
                                        .teardown = teardown});
}
