/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.h -- threads call a map, and each call is written down with its invocation and its return, as linear.h wants them.
 *
 * Keys are 0 .. key_count - 1. The numbers come from one counter, which is changed by relaxed atomic operations: they order nothing
 * that the race detector sees. Each number is drawn outside of its call, so a call seems longer than it was, never shorter.
 */
#ifndef TESTS_LINEAR_HISTORY_H
#define TESTS_LINEAR_HISTORY_H

#include "tests/linear/linear.h"
#include "tests/support/random.h"

#define HISTORY_THREADS (LINEAR_THREADS / 2) /* a thread's scans count as another thread's calls */
#define HISTORY_LEAF    40u                  /* at most so many keys are seen at one instant */

typedef int (*history_visit_fn)(uint64_t key, uint64_t value, void *arg);
struct history_map {
    void *map;
    int (*insert)(void *map, uint64_t key, uint64_t value);
    int (*upsert)(void *map, uint64_t key, uint64_t value);
    int (*find)(void *map, uint64_t key, uint64_t *ret_value);
    int (*remove)(void *map, uint64_t key);
    int (*scan)(void *map, uint64_t from, history_visit_fn visit, void *arg);
};

struct history_entry {
    uint64_t key;
    struct linear_call call;
};

struct history;
struct history_thread {
    struct history *history;
    unsigned number;
    struct random random;
    uint64_t values; /* written so far */
    uint64_t calls;  /* of the map */
    struct history_entry *at;
    size_t count, room;
};

struct history {
    struct history_map map;
    uint64_t key_count;
    bool
        whole; /* the map is one object: a scan is one call that sees all its keys (at most LINEAR_KEYS) at one instant */
    uint64_t clock;
    struct history_thread thread[HISTORY_THREADS];
};

void history_init(struct history *h, const struct history_map *map, uint64_t key_count, bool whole, uint64_t seed);
void history_fini(struct history *h);
/** Run body in so many threads, each with its struct history_thread. May be called again; the history goes on. */
void history_run(struct history *h, unsigned threads, void *(*body)(void *));

/** One call of the map, which must give a code that the operation may give. Written values are new ones. */
void history_call(struct history_thread *t, enum linear_op op, uint64_t key);
/** A scan that stops after limit keys; now and then its visitor makes a call of its own. Checks the order, and what is in range. */
void history_scan(struct history_thread *t, uint64_t from, unsigned limit);

/** Fails the test, with the calls around it printed, if some key's history (or the whole map's) is not linearizable. */
void history_verify(struct history *h);
/** As history_verify, but tells: the key that is wrong, or key_count. */
uint64_t history_first_wrong(struct history *h, bool print);
uint64_t history_calls(const struct history *h);

#endif
