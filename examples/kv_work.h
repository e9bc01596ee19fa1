/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv_work.h -- what the demo does to a store: load, look up, mix, empty, be killed; and what it then expects to find.
 *
 * Journal. The parent and a worker that is to be killed share memory. Per record there is the state that the store has
 * acknowledged, per thread the operation in flight with the state that it would lead to. A SIGKILL does not touch the mapping,
 * and writing to it costs no system call, so the kill falls into the engine and not into a write(). After a kill a record must be
 * exactly as acknowledged, except one per thread, which may be as before or as after.
 */
#ifndef EXAMPLES_KV_WORK_H
#define EXAMPLES_KV_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "examples/kv.h"
#include "examples/kv_input.h"

#define WORK_THREADS_MAX 64u

/** A record's state is version << 1 | present. Version 0 is the input's value; version v adds "@" and v in eight hex digits. */
typedef uint64_t work_state;

struct work_journal {
    _Alignas(64) uint64_t record; /* in flight: record number + 1; 0 = none */
    work_state after;             /* its state if the operation took place; stored before `record` */
    uint64_t done;                /* operations acknowledged since the worker began */
};

struct work {
    const struct kv_input *input;
    struct kv *kv;
    unsigned threads;
    uint64_t seed;
    work_state *states;           /* shared memory; one per record */
    struct work_journal *journal; /* shared memory; one per thread */
    uint32_t **owned;             /* per thread: the records that it works on; no record has two */
    uint32_t *owned_count;
    bool show_progress;
};

enum work_phase { WORK_LOAD, WORK_LOOKUP, WORK_MIX, WORK_EMPTY, WORK_UNTIL_KILLED };

struct work_result {
    uint64_t operations;
    uint64_t failures; /* operations that the store refused, or look-ups with a wrong answer */
    double seconds;
    double cpu_seconds; /* sum over the threads */
    uint64_t fences, lines;
};

/** 0, or -1 if there is no memory. */
int work_init(struct work *w, const struct kv_input *input, unsigned threads, uint64_t seed, bool show_progress);
void work_fini(struct work *w);
/** Run a phase with all threads; mix_operations counts for WORK_MIX only. Each thread takes the records that it owns, so
 *  duplicates of a key are put in the order of the input and the last one wins. */
void work_run(struct work *w, enum work_phase phase, uint64_t mix_operations, struct work_result *ret);

struct work_verdict {
    uint64_t checked;
    uint64_t lost;           /* acknowledged and not there */
    uint64_t wrong;          /* another value than the acknowledged one */
    uint64_t returned;       /* deleted, acknowledged, and there again */
    uint64_t leaked;         /* value blocks that no key names, keys out of order or counted twice */
    uint64_t in_flight;      /* operations that a kill caught */
    uint64_t in_flight_done; /* of these, took place */
    uint64_t live_bytes, other_blocks;
};
/** Compare the store with input and journal, record by record and block by block, and clear the journal. Adds to *v; says what is
 *  wrong on stderr. -1 if the store cannot be read. */
int work_verify(struct work *w, struct work_verdict *v);
/** Replace a record that is not in flight: the first operation after an open. */
int work_first_put(struct work *w);

/** A progress bar on stderr. */
void work_progress(const char *phase, double fraction);
void work_progress_end(void);

#endif
