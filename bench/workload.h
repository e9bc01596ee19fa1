/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * workload.h -- patterns of allocation and free that any subject can run. One operation is a pair: one allocation and one free.
 *
 * Every thread works on slots of its own table. Slot numbers are spread over the table, so that neighbours in a line are not
 * used one after the other.
 *
 *   pair    all slots empty; allocate into the next slot, free it at once
 *   window  all slots filled; free the next slot, or a random one, and allocate into it
 *   batch   allocate into all slots, then free all
 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include "bench/subjects.h"

enum pattern { PATTERN_PAIR, PATTERN_WINDOW, PATTERN_BATCH };

struct workload {
    const struct subject *subject;
    enum pattern pattern;
    unsigned slots;            /* used by each thread: 1 .. SUBJECT_SLOTS */
    bool random_slots;         /* window: a random slot instead of the next */
    size_t size_min, size_max; /* equal, or log-uniform in [min, max), max a multiple of min by a power of two */
};

/** Register the case "SUBJECT/name" for that many threads. *w is copied. Reports fences and lines if the subject counts them. */
void workload_register(const char *name, const struct workload *w, unsigned threads);

#endif
