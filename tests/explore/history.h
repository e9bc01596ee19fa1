/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * history.h -- a scenario: operations that are recorded, and the oracle that judges what a crash leaves of them.
 *
 * A history is a list of operations, each from its begin to its end in the trace, and each changing some cells from one value
 * to another. A cell is whatever the scenario can read back: an owner pointer, the value of a key. At a crash, an operation
 * that had ended holds; of one that had begun but not ended all cells have the old values or all have the new ones. Events
 * carry a thread number and operations may overlap, so histories of several threads can be cut too.
 */
#ifndef TESTS_EXPLORE_HISTORY_H
#define TESTS_EXPLORE_HISTORY_H

#include <pallocator.h>

#include "tests/explore/recorder.h"

#define WHY_BYTES   512u
#define PRINTF_LIKE __attribute__((format(printf, 2, 3)))

struct value {
    uint64_t a, b;
};

/** A cell that has no meaning, because the block it lies in is free. */
#define VALUE_ANY ((struct value){UINT64_MAX, UINT64_MAX})

struct change {
    uint32_t cell;
    struct value before, after;
};

struct op {
    char what[64];
    size_t begin, end; /* events; end = SIZE_MAX: never */
    struct change *changes;
    uint32_t changes_count;
    bool loose; /* the program's own steps: in flight, its cells may hold anything */
};

struct judge;
struct history;

enum judge_phase {
    JUDGE_OPEN,  /* open, judge, close: recorded */
    JUDGE_AGAIN, /* check offline, open and judge again */
    JUDGE_FILL   /* now and then: fill it up and empty it */
};

struct scenario {
    const char *name, *title;
    int (*run)(struct history *h); /* 0, or history_fail */
    void (*judge)(struct judge *j, enum judge_phase phase);
    void (*fini)(struct history *h); /* may be NULL */
    unsigned variant;
    unsigned nested_every; /* crash again inside the recovery of one state in so many; 0 = the run's default */
    unsigned name_kills;   /* the process dies at one in so many points where names or sizes are pending; 0 = 1 */
    bool threads;          /* of several threads: recorded anew it is another history, so its ids cannot be replayed */
    bool private_maps;     /* the library works on private mappings too, where stores reach no file */
    bool self_test;        /* of the explorer: not the library's, run only by --self-test or by name */
    bool bare;             /* the pool's directory is not there at the beginning */
    bool in_place; /* files name the place they are in: it is recorded where its states are put, by one worker */
    bool broken;   /* a self-test in which a violation must be found */
};
/** All scenarios; ends with a NULL name. */
extern const struct scenario *const scenarios[];

struct history {
    const struct scenario *scenario;
    uint64_t seed, random;
    char root[PATH_BYTES], dir[PATH_BYTES + NAME_BYTES]; /* the world, and the pool in it */
    struct trace trace;
    struct recorder recorder;
    struct op *ops;
    size_t ops_count, ops_capacity;
    size_t from; /* crash points begin at this event */
    char problem[WHY_BYTES];
    void *context; /* the scenario's */
};

/** One look at one crash state. */
struct judge {
    const struct history *history;
    size_t event;    /* the crash came before this event of the history */
    const char *dir; /* the pool's in the state */
    struct recorder *recorder;
    uint64_t fingerprint; /* of what was found, as the program sees it; JUDGE_AGAIN must find the same */
    uint64_t cells;       /* the same of the cells alone */
    size_t
        opened; /* events of the recorder's trace when everything was open: from here on the program may have seen it */
    char why[WHY_BYTES]; /* empty = sound */
    bool shown;          /* an opening before this crash had come to its end */
    bool verbose;
};

/** Crash points begin here: what came before is only the way to this state. */
void history_from_here(struct history *h);
/** What is not durable becomes so by and by; then crash points begin here. */
void history_settle(struct history *h);
/** Note a failure of the run itself; returns -1. */
int history_fail(struct history *h, const char *format, ...) PRINTF_LIKE;
size_t history_begin(struct history *h, const char *format, ...) PRINTF_LIKE;
void history_change(struct history *h, size_t op, uint32_t cell, struct value before, struct value after);
/** The operation is not atomic: while it is in flight, its cells are not looked at. */
void history_loose(struct history *h, size_t op);
void history_end(struct history *h, size_t op);
/** Run on the n-th of the cores this process may use (modulo their number). */
void history_pin(unsigned n);
void history_unpin(void);
uint64_t history_random(struct history *h, uint64_t below);
void history_fini(struct history *h);

enum op_state { OP_NOT_BEGUN, OP_IN_FLIGHT, OP_ENDED };
static inline enum op_state op_state_at(const struct op *op, size_t event)
{
    return op->end < event ? OP_ENDED : op->begin < event ? OP_IN_FLIGHT : OP_NOT_BEGUN;
}

/** Note a violation, the first one only. */
void judge_fail(struct judge *j, const char *format, ...) PRINTF_LIKE;
/** How a scenario's cells are read. */
struct cells {
    /** False if the cell cannot be read; then it has called judge_fail. */
    bool (*read)(struct judge *j, uint32_t cell, struct value *ret, void *arg);
    /** Told each cell's value, if it has a meaning at this moment. May be NULL. */
    void (*found)(struct judge *j, uint32_t cell, struct value value, void *arg);
    void *arg;
};
/** Compare every cell that the history ever changed with what it may be. Updates the fingerprint. */
void judge_cells(struct judge *j, const struct cells *cells);

#endif
