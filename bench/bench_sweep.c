/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_sweep.c -- cost of a pair by size, from 64 B to 16 MiB, and of one huge block's. window: each of the live blocks in turn is
 * freed and allocated again; there are 1,000, or as many as make 64 MiB, at least four. pair: allocate, free at once.
 */
#include <stdio.h>

#include "bench/harness.h"
#include "bench/workload.h"

#define KIB(n)     ((size_t)(n) << 10)
#define MIB(n)     ((size_t)(n) << 20)
#define LIVE_BYTES MIB(64)

static const size_t sizes[] = {64,     100,      128,      256,      512,      1000,    KIB(1),  KIB(2),
                               KIB(4), 5000,     KIB(8),   KIB(16),  20000,    KIB(32), KIB(48), KIB(64),
                               100000, KIB(128), KIB(256), KIB(384), KIB(512), MIB(1),  1500000, MIB(2),
                               MIB(4), MIB(8),   12000000, MIB(16),  MIB(32)};
static const size_t smoke_sizes[] = {64, KIB(64), MIB(16)};

static void register_size(const struct subject *s, enum pattern pattern, size_t size)
{
    char name[64];
    size_t live = LIVE_BYTES / size;
    unsigned slots = live > SUBJECT_SLOTS ? SUBJECT_SLOTS : live < 4 ? 4 : (unsigned)live;
    struct workload w = {s, pattern, slots, false, size, size};
    snprintf(name, sizeof name, "%s/%zu", pattern == PATTERN_PAIR ? "pair" : "window", size);
    workload_register(name, &w, 1);
}

void bench_register_all(void)
{
    bool smoke = bench_option("smoke", NULL) != NULL;
    const size_t *list = smoke ? smoke_sizes : sizes;
    size_t count = smoke ? sizeof smoke_sizes / sizeof *smoke_sizes : sizeof sizes / sizeof *sizes;
    const char *wanted = bench_option("subjects", "pallocator,pmemobj,jemalloc");
    for (const struct subject *s = NULL; (s = subject_next(s, wanted)) != NULL;)
        for (size_t i = 0; i < count; i++) {
            register_size(s, PATTERN_WINDOW, list[i]);
            register_size(s, PATTERN_PAIR, list[i]);
        }
}
