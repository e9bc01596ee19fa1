/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_alloc.c -- allocate and free, by size, pattern and number of threads, on libpallocator, on libpmemobj (its atomic
 * allocation into an owner in the pool) and, as a volatile bound, on jemalloc and glibc's malloc.
 *
 * One operation is a pair: one allocation and one free. Every thread has a table of 1,000 owners, which itself is a block of the
 * pool, and visits its slots in a fixed scattered order, so that neighbours in a line are not used one after the other.
 *
 *   pair    all slots empty; allocate into the next slot, free it at once
 *   window  all slots filled; free the next slot, allocate into it
 *   batch   allocate into all slots, then free all
 *   random  as window, with sizes log-uniform from 64 B to 16 KiB
 */
#include <dlfcn.h>
#include <libpmemobj.h>
#include <pallocator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/harness.h"

enum { SLOTS = 1000, STRIDE = 617 /* coprime to SLOTS, and far in lines */, MAX_THREADS = 64, TURN = 100 };
#define MIXED_MAX_BYTES    16384u
#define PMEMOBJ_POOL_BYTES ((size_t)1 << 30)

/* An allocator under test. A table is SLOTS owners of one thread; slots are visited by index. */
struct subject {
    const char *name;
    bool (*open)(void);              /* once; false = not available here */
    void *(*table)(unsigned thread); /* the same table at every call */
    int (*allocate)(void *table, size_t slot, size_t size);
    int (*free)(void *table, size_t slot);
    bool (*is_empty)(const void *table, size_t slot);
    void (*counts)(uint64_t *ret_fences, uint64_t *ret_lines); /* NULL = not known */
};

/* ---------------------------------------------------------------------------------------------- libpallocator */

static struct {
    pa_pool *pool;
    pa_pptr *tables; /* the root: one pointer per thread */
} ours;

static bool ours_open(void)
{
    char path[512];
    pa_pptr root;
    snprintf(path, sizeof path, "%s/pallocator", bench_directory());
    if (pa_create(path, NULL, &ours.pool) != 0 || pa_root(ours.pool, MAX_THREADS * sizeof(pa_pptr), &root) != 0) {
        fprintf(stderr, "bench_alloc: %s\n", pa_errormsg());
        return false;
    }
    ours.tables = pa_direct(ours.pool, root);
    return true;
}

static void *ours_table(unsigned thread)
{
    if (pa_is_null(ours.tables[thread])) {
        if (pa_allocate(ours.pool, &ours.tables[thread], SLOTS * sizeof(pa_pptr)) != 0)
            return NULL;
        void *table = pa_direct(ours.pool, ours.tables[thread]);
        memset(table, 0, SLOTS * sizeof(pa_pptr));
        pa_persist(ours.pool, table, SLOTS * sizeof(pa_pptr));
    }
    return pa_direct(ours.pool, ours.tables[thread]);
}

static int ours_allocate(void *table, size_t slot, size_t size)
{
    return pa_allocate(ours.pool, (pa_pptr *)table + slot, size);
}

static int ours_free(void *table, size_t slot)
{
    return pa_deallocate(ours.pool, (pa_pptr *)table + slot);
}

static bool ours_is_empty(const void *table, size_t slot)
{
    return pa_is_null(((const pa_pptr *)table)[slot]);
}

static void ours_counts(uint64_t *ret_fences, uint64_t *ret_lines)
{
    pa_stats stats;
    if (pa_get_stats(ours.pool, &stats) != 0)
        memset(&stats, 0, sizeof stats);
    *ret_fences = stats.fences;
    *ret_lines = stats.flushed_lines;
}

/* ---------------------------------------------------------------------------------------------- libpmemobj */

struct theirs_root {
    PMEMoid tables[MAX_THREADS];
};

static struct {
    PMEMobjpool *pool;
    struct theirs_root *root;
} theirs;

static bool theirs_open(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/pmemobj", bench_directory());
    theirs.pool = pmemobj_create(path, "bench", PMEMOBJ_POOL_BYTES, 0600);
    if (theirs.pool == NULL) {
        fprintf(stderr, "bench_alloc: %s\n", pmemobj_errormsg());
        return false;
    }
    theirs.root = pmemobj_direct(pmemobj_root(theirs.pool, sizeof *theirs.root));
    return true;
}

static void *theirs_table(unsigned thread)
{
    PMEMoid *owner = &theirs.root->tables[thread];
    if (OID_IS_NULL(*owner) && pmemobj_zalloc(theirs.pool, owner, SLOTS * sizeof(PMEMoid), 0) != 0)
        return NULL;
    return pmemobj_direct(*owner);
}

static int theirs_allocate(void *table, size_t slot, size_t size)
{
    return pmemobj_alloc(theirs.pool, (PMEMoid *)table + slot, size, 1, NULL, NULL);
}

static int theirs_free(void *table, size_t slot)
{
    pmemobj_free((PMEMoid *)table + slot);
    return 0;
}

static bool theirs_is_empty(const void *table, size_t slot)
{
    return OID_IS_NULL(((const PMEMoid *)table)[slot]);
}

/* ---------------------------------------------------------------------------------------------- volatile bounds */

static void *volatile_tables[2][MAX_THREADS];
static void *(*jemalloc_malloc)(size_t);
static void (*jemalloc_free)(void *);

static bool jemalloc_open(void)
{
    /* Loaded beside glibc's, so that the subjects above keep theirs. */
    void *library = dlopen("libjemalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return false;
    *(void **)&jemalloc_malloc = dlsym(library, "malloc");
    *(void **)&jemalloc_free = dlsym(library, "free");
    return jemalloc_malloc != NULL && jemalloc_free != NULL;
}

static bool glibc_open(void)
{
    return true;
}

static void *volatile_table(unsigned which, unsigned thread)
{
    if (volatile_tables[which][thread] == NULL)
        volatile_tables[which][thread] = calloc(SLOTS, sizeof(void *));
    return volatile_tables[which][thread];
}

static void *jemalloc_table(unsigned thread)
{
    return volatile_table(0, thread);
}

static void *glibc_table(unsigned thread)
{
    return volatile_table(1, thread);
}

static int jemalloc_allocate(void *table, size_t slot, size_t size)
{
    ((void **)table)[slot] = jemalloc_malloc(size);
    return ((void **)table)[slot] == NULL ? -1 : 0;
}

static int jemalloc_release(void *table, size_t slot)
{
    jemalloc_free(((void **)table)[slot]);
    ((void **)table)[slot] = NULL;
    return 0;
}

static int glibc_allocate(void *table, size_t slot, size_t size)
{
    ((void **)table)[slot] = malloc(size);
    return ((void **)table)[slot] == NULL ? -1 : 0;
}

static int glibc_release(void *table, size_t slot)
{
    free(((void **)table)[slot]);
    ((void **)table)[slot] = NULL;
    return 0;
}

static bool volatile_is_empty(const void *table, size_t slot)
{
    return ((void *const *)table)[slot] == NULL;
}

static const struct subject subjects[] = {
    {"pallocator", ours_open, ours_table, ours_allocate, ours_free, ours_is_empty, ours_counts},
    {"pmemobj", theirs_open, theirs_table, theirs_allocate, theirs_free, theirs_is_empty, NULL},
    {"jemalloc", jemalloc_open, jemalloc_table, jemalloc_allocate, jemalloc_release, volatile_is_empty, NULL},
    {"glibc", glibc_open, glibc_table, glibc_allocate, glibc_release, volatile_is_empty, NULL},
};

/* ---------------------------------------------------------------------------------------------- patterns */

/* What one run shares. One is enough: cases run one after the other. */
static struct run {
    const struct subject *subject;
    void *tables[MAX_THREADS];
    uint64_t fences, lines; /* at the start of the loop */
    const char *error;
} run;

static size_t next_slot(size_t slot)
{
    return (slot + STRIDE) % SLOTS;
}

/* Log-uniform from 64 B to MIXED_MAX_BYTES when size is 0. */
static size_t pick_size(size_t size, uint64_t *random)
{
    if (size != 0)
        return size;
    uint64_t r = bench_random(random);
    unsigned doublings = 0;
    for (size_t s = 64; s < MIXED_MAX_BYTES; s *= 2)
        doublings++;
    size_t base = (size_t)64 << ((r >> 32) % doublings);
    return base + (r & 0xffffffffu) % base;
}

static void empty_tables(const struct subject *s, unsigned threads)
{
    for (unsigned t = 0; t < threads; t++)
        for (size_t slot = 0; slot < SLOTS; slot++)
            if (!s->is_empty(run.tables[t], slot))
                s->free(run.tables[t], slot);
}

static int fill_tables(const struct subject *s, unsigned threads, size_t size)
{
    uint64_t random = 1;
    for (unsigned t = 0; t < threads; t++)
        for (size_t slot = 0; slot < SLOTS; slot++)
            if (s->allocate(run.tables[t], slot, pick_size(size, &random)) != 0)
                return -1;
    return 0;
}

static void note_counts(const struct subject *s)
{
    if (s->counts != NULL)
        s->counts(&run.fences, &run.lines);
}

static void *setup(const struct bench_case *c, bool filled)
{
    run.subject = c->params;
    run.error = NULL;
    for (unsigned t = 0; t < c->threads; t++)
        if ((run.tables[t] = run.subject->table(t)) == NULL)
            run.error = "no owner table";
    if (run.error == NULL && filled && fill_tables(run.subject, c->threads, c->argument) != 0)
        run.error = "cannot fill the owners";
    note_counts(run.subject);
    return &run;
}

static void *setup_empty(const struct bench_case *c)
{
    return setup(c, false);
}

static void *setup_filled(const struct bench_case *c)
{
    return setup(c, true);
}

static void teardown(struct bench *b, void *shared)
{
    (void)shared;
    if (run.subject->counts != NULL) {
        uint64_t fences, lines;
        run.subject->counts(&fences, &lines);
        bench_count_per_op(b, "fences", (double)(fences - run.fences));
        bench_count_per_op(b, "lines", (double)(lines - run.lines));
    }
    if (run.error == NULL)
        empty_tables(run.subject, bench_threads(b));
}

/* A thread's place in its table. */
struct walk {
    const struct subject *subject;
    void *table;
    size_t slot, size;
    uint64_t random;
    int failed;
};

static bool walk_begin(struct bench *b, struct walk *w)
{
    if (run.error != NULL) {
        bench_fail(b, run.error);
        return false;
    }
    *w = (struct walk){.subject = run.subject,
                       .table = run.tables[bench_thread(b)],
                       .size = bench_argument(b),
                       .random = 1000 + bench_thread(b)};
    return true;
}

static void walk_end(struct bench *b, const struct walk *w)
{
    if (w->failed != 0)
        bench_fail(b, "an operation failed");
}

static void run_pair(struct bench *b)
{
    struct walk w;
    if (!walk_begin(b, &w))
        return;
    while (bench_more(b, TURN))
        for (int i = 0; i < TURN; i++, w.slot = next_slot(w.slot)) {
            w.failed |= w.subject->allocate(w.table, w.slot, w.size);
            w.failed |= w.subject->free(w.table, w.slot);
        }
    walk_end(b, &w);
}

static void run_window(struct bench *b)
{
    struct walk w;
    if (!walk_begin(b, &w))
        return;
    while (bench_more(b, TURN))
        for (int i = 0; i < TURN; i++, w.slot = next_slot(w.slot)) {
            w.failed |= w.subject->free(w.table, w.slot);
            w.failed |= w.subject->allocate(w.table, w.slot, pick_size(w.size, &w.random));
        }
    walk_end(b, &w);
}

static void run_batch(struct bench *b)
{
    struct walk w;
    if (!walk_begin(b, &w))
        return;
    while (bench_more(b, SLOTS)) {
        for (int i = 0; i < SLOTS; i++, w.slot = next_slot(w.slot))
            w.failed |= w.subject->allocate(w.table, w.slot, w.size);
        for (int i = 0; i < SLOTS; i++, w.slot = next_slot(w.slot))
            w.failed |= w.subject->free(w.table, w.slot);
    }
    walk_end(b, &w);
}

/* ---------------------------------------------------------------------------------------------- cases */

static const struct pattern {
    const char *name;
    void *(*setup)(const struct bench_case *c);
    void (*run)(struct bench *b);
    size_t size; /* 0 = mixed */
} patterns[] = {
    {"pair/64", setup_empty, run_pair, 64},      {"pair/1024", setup_empty, run_pair, 1024},
    {"window/64", setup_filled, run_window, 64}, {"window/1024", setup_filled, run_window, 1024},
    {"batch/64", setup_empty, run_batch, 64},    {"batch/1024", setup_empty, run_batch, 1024},
    {"random", setup_filled, run_window, 0},
};

static const unsigned thread_counts[] = {1, 2, 8};

static void register_pattern(const struct subject *s, const struct pattern *p)
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s", s->name, p->name);
    for (size_t i = 0; i < sizeof thread_counts / sizeof *thread_counts; i++)
        bench_register(&(struct bench_case){.name = name,
                                            .threads = thread_counts[i],
                                            .argument = p->size,
                                            .params = s,
                                            .setup = p->setup,
                                            .run = p->run,
                                            .teardown = teardown});
}

void bench_register_all(void)
{
    const char *wanted = bench_option("subjects", "pallocator,pmemobj,jemalloc,glibc");
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
        if (strstr(wanted, subjects[i].name) == NULL || !subjects[i].open())
            continue;
        for (size_t k = 0; k < sizeof patterns / sizeof *patterns; k++)
            register_pattern(&subjects[i], &patterns[k]);
    }
}
