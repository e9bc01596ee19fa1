/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_mixed.c -- small and big blocks mixed: each thread holds 1,000 blocks and replaces a random one, with sizes log-uniform from
 * 64 B to 128 KiB, or from 32 to 512 KiB.
 */
#include "bench/harness.h"
#include "bench/workload.h"

static const struct {
    const char *name;
    size_t size_min, size_max;
    unsigned threads;
} cases[] = {
    {"64 B - 128 KiB", 64, 128 << 10, 1},
    {"64 B - 128 KiB", 64, 128 << 10, 8},
    {"32 - 512 KiB", 32 << 10, 512 << 10, 2},
};

void bench_register_all(void)
{
    const char *wanted = bench_option("subjects", "pallocator,pmemobj,jemalloc,glibc");
    for (const struct subject *s = NULL; (s = subject_next(s, wanted)) != NULL;)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct workload w = {s, PATTERN_WINDOW, SUBJECT_SLOTS, true, cases[i].size_min, cases[i].size_max};
            workload_register(cases[i].name, &w, cases[i].threads);
        }
}
