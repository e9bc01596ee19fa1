/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_alloc.c -- allocate and free small blocks, by size, pattern (see workload.h) and number of threads. random: as window,
 * with sizes log-uniform from 64 B to 16 KiB.
 */
#include "bench/harness.h"
#include "bench/workload.h"

static const struct {
    const char *name;
    enum pattern pattern;
    size_t size_min, size_max;
} cases[] = {
    {"pair/64", PATTERN_PAIR, 64, 64},     {"pair/1024", PATTERN_PAIR, 1024, 1024},
    {"window/64", PATTERN_WINDOW, 64, 64}, {"window/1024", PATTERN_WINDOW, 1024, 1024},
    {"batch/64", PATTERN_BATCH, 64, 64},   {"batch/1024", PATTERN_BATCH, 1024, 1024},
    {"random", PATTERN_WINDOW, 64, 16384},
};

static const unsigned thread_counts[] = {1, 2, 8};

void bench_register_all(void)
{
    const char *wanted = bench_option("subjects", "pallocator,pmemobj,jemalloc,glibc");
    for (const struct subject *s = NULL; (s = subject_next(s, wanted)) != NULL;)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct workload w = {s, cases[i].pattern, SUBJECT_SLOTS, false, cases[i].size_min, cases[i].size_max};
            for (size_t k = 0; k < sizeof thread_counts / sizeof *thread_counts; k++)
                workload_register(cases[i].name, &w, thread_counts[k]);
        }
}
