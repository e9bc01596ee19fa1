/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake_space.h -- a leaf space in ordinary memory, so that trees are tested without a pool, and a model of what a crash leaves.
 *
 * The space hands out 768-byte blocks of an arena; allocation and free are failure-atomic by decree. With recording on, it keeps
 * beside the arena what is certainly durable and, per line, the word stores that may or may not have arrived: any prefix per
 * line, lines independently. fake_crash makes a new space that holds one such state.
 */
#ifndef TESTS_FPTREE_FAKE_SPACE_H
#define TESTS_FPTREE_FAKE_SPACE_H

#include <pthread.h>

#include "fptree/tree.h"

#define FAKE_HEADER     4096u /* pa_off of the header block; blocks follow the page it is in */
#define FAKE_BLOCKS     8192u
#define FAKE_LINE_WORDS 8u

/** Word stores to one line that are not certainly durable. */
struct fake_line {
    uint32_t line; /* offset / 64 */
    uint32_t count, flushed;
    struct {
        uint32_t word;
        uint64_t value;
    } stores[128];
};

struct fake {
    struct tree_space space;
    struct media media;
    struct media_recorder recorder;
    char *arena, *durable;
    size_t bytes;
    uint32_t blocks, allocated;
    pthread_mutex_t mutex;
    bool scribble;       /* overwrite blocks when they are freed and allocated */
    uint8_t *used;       /* [blocks] */
    uint32_t fail_after; /* allocations that still succeed; UINT32_MAX = all */
    uint32_t allocations, frees;
    struct media_tally tally;
    /* Recording. */
    struct fake_line *lines;
    size_t line_count, line_capacity;
    uint32_t *slot_of_line; /* index in lines + 1 */
    uint64_t events;
    bool at_drain;      /* the moment is just before a drain */
    const char *omit;   /* a site whose flush or drain is left out */
    const char **sites; /* NULL or room for site_room names of flushes and drains that were asked for */
    size_t site_count, site_room;
    void (*moment)(struct fake *f, void *arg); /* before each drain and after each store and flush */
    void *arg;
};

/** blocks <= FAKE_BLOCKS. The first line of the header block is zero, everything else garbage. */
struct fake *fake_new(uint32_t blocks);
void fake_delete(struct fake *f);
/** Start recording: everything so far is durable. */
void fake_record(struct fake *f, void (*moment)(struct fake *f, void *arg), void *arg);
void fake_stop(struct fake *f);

/** How a crash state treats the pending lines: kept(line index, number of stores) = length of the prefix that arrived. */
typedef uint32_t (*fake_choice_fn)(void *arg, size_t line, uint32_t count);
struct fake *fake_crash(const struct fake *f, fake_choice_fn kept, void *arg);
/** The process dies and the machine does not: a new, recording space with the same arena, in which nothing more is durable. */
struct fake *fake_kill(const struct fake *f, void (*moment)(struct fake *f, void *arg), void *arg);
/** Compare the tree's blocks with the allocated ones: NULL if equal, else what is wrong. */
const char *fake_leaks(const struct fake *f, const struct tree *t);

#endif
