/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * subjects.h -- the allocators that benchmarks compare: libpallocator, libpmemobj (its atomic allocation into an owner in the
 * pool) and, as volatile bounds, jemalloc and glibc's malloc.
 *
 * A subject hands out tables of owners, one per thread; a persistent subject's table is itself a block of its pool.
 */
#ifndef BENCH_SUBJECTS_H
#define BENCH_SUBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SUBJECT_SLOTS = 1000 /* owners in a table */, SUBJECT_THREADS = 64 };

struct subject {
    const char *name;
    bool (*open)(void);              /* once; false = not available here */
    void *(*table)(unsigned thread); /* the same table at every call; NULL = out of space */
    int (*allocate)(void *table, size_t slot, size_t size);
    int (*free)(void *table, size_t slot);
    bool (*is_empty)(const void *table, size_t slot);
    bool (*counts)(uint64_t *ret_fences, uint64_t *ret_lines); /* since open; false = not known. NULL = it has none */
};

/** The subject after s (NULL: the first) that is named in the comma-separated list wanted, opened; NULL at the end. */
const struct subject *subject_next(const struct subject *s, const char *wanted);

#endif
