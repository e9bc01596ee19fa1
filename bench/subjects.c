/* SPDX-License-Identifier: BSD-3-Clause */
/* subjects.c -- see subjects.h. */
#include "bench/subjects.h"

#include <dlfcn.h>
#include <libpmemobj.h>
#include <pallocator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/harness.h"

#define PMEMOBJ_POOL_BYTES ((size_t)1 << 30)

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
    if (pa_create(path, NULL, &ours.pool) != 0 || pa_root(ours.pool, SUBJECT_THREADS * sizeof(pa_pptr), &root) != 0) {
        fprintf(stderr, "bench: %s\n", pa_errormsg());
        return false;
    }
    ours.tables = pa_direct(ours.pool, root);
    return true;
}

static void *ours_table(unsigned thread)
{
    if (pa_is_null(ours.tables[thread])) {
        if (pa_allocate(ours.pool, &ours.tables[thread], SUBJECT_SLOTS * sizeof(pa_pptr)) != 0)
            return NULL;
        void *table = pa_direct(ours.pool, ours.tables[thread]);
        memset(table, 0, SUBJECT_SLOTS * sizeof(pa_pptr));
        pa_persist(ours.pool, table, SUBJECT_SLOTS * sizeof(pa_pptr));
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

static bool ours_counts(uint64_t *ret_fences, uint64_t *ret_lines)
{
    pa_stats stats;
    if (pa_get_stats(ours.pool, &stats) != 0)
        return false;
    *ret_fences = stats.fences;
    *ret_lines = stats.flushed_lines;
    return true;
}

/* ---------------------------------------------------------------------------------------------- libpmemobj */

struct theirs_root {
    PMEMoid tables[SUBJECT_THREADS];
};

static struct {
    PMEMobjpool *pool;
    struct theirs_root *root;
    void (*counts)(uint64_t *ret_fences, uint64_t *ret_lines); /* of the preloaded count.c, if it is */
} theirs;

static bool theirs_open(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s/pmemobj", bench_directory());
    theirs.pool = pmemobj_create(path, "bench", PMEMOBJ_POOL_BYTES, 0600);
    if (theirs.pool == NULL) {
        fprintf(stderr, "bench: %s\n", pmemobj_errormsg());
        return false;
    }
    theirs.root = pmemobj_direct(pmemobj_root(theirs.pool, sizeof *theirs.root));
    *(void **)&theirs.counts = dlsym(RTLD_DEFAULT, "bench_pmem_counts");
    return true;
}

static void *theirs_table(unsigned thread)
{
    PMEMoid *owner = &theirs.root->tables[thread];
    if (OID_IS_NULL(*owner) && pmemobj_zalloc(theirs.pool, owner, SUBJECT_SLOTS * sizeof(PMEMoid), 0) != 0)
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

static bool theirs_counts(uint64_t *ret_fences, uint64_t *ret_lines)
{
    if (theirs.counts == NULL)
        return false;
    theirs.counts(ret_fences, ret_lines);
    return true;
}

/* ---------------------------------------------------------------------------------------------- volatile bounds */

static void *volatile_tables[2][SUBJECT_THREADS];
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
        volatile_tables[which][thread] = calloc(SUBJECT_SLOTS, sizeof(void *));
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

/* ---------------------------------------------------------------------------------------------- all */

static const struct subject subjects[] = {
    {"pallocator", ours_open, ours_table, ours_allocate, ours_free, ours_is_empty, ours_counts},
    {"pmemobj", theirs_open, theirs_table, theirs_allocate, theirs_free, theirs_is_empty, theirs_counts},
    {"jemalloc", jemalloc_open, jemalloc_table, jemalloc_allocate, jemalloc_release, volatile_is_empty, NULL},
    {"glibc", glibc_open, glibc_table, glibc_allocate, glibc_release, volatile_is_empty, NULL},
};

const struct subject *subject_next(const struct subject *s, const char *wanted)
{
    const struct subject *end = subjects + sizeof subjects / sizeof *subjects;
    for (s = s == NULL ? subjects : s + 1; s < end; s++)
        if (strstr(wanted, s->name) != NULL && s->open())
            return s;
    return NULL;
}
