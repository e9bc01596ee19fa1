/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * poolside.h -- what the scenarios on a pool share: recorded operations, and the judge of a pool.
 *
 * Cells are places in the pool: the owner pointers of a table in the root block, owner pointers and words inside blocks, keys
 * of trees. The judge opens the state with the real library, and demands: it opens; every cell is as the history allows;
 * the allocated blocks are exactly what the owners and the trees name, once each, without overlap; the statistics agree; the
 * offline check finds nothing; a second opening finds the same; and, now and then, the pool can be filled and emptied.
 */
#ifndef TESTS_EXPLORE_POOLSIDE_H
#define TESTS_EXPLORE_POOLSIDE_H

#include <fptree.h>

#include "pool/pool.h"
#include "tests/explore/scenarios.h"

#define OWNERS_MAX 64u
#define TREES_MAX  2u
#define MORE_MAX   2u

enum cell_kind {
    CELL_OWNER, /* a pa_pptr at a place in the pool */
    CELL_WORD,  /* 8 bytes at a place in the pool */
    CELL_KEY,   /* a tree's key: {1, value} or {0, 0} */
    CELL_SIZE,  /* usable bytes of the block that an owner cell names; 0 = none */
    CELL_STAMP  /* 8 bytes at an offset of the block that an owner cell names, wherever that lies */
};

struct cell_place {
    enum cell_kind kind;
    bool in_root; /* at.offset counts from the root block */
    pa_pptr at;   /* STAMP: offset counts from the block */
    uint64_t key;
    unsigned tree;
    uint32_t owner;    /* SIZE, STAMP: cell */
    struct value last; /* SIZE, STAMP: as the history has made it */
};

/** The place of a cell in an open pool. */
void *cell_address(const pa_pool *pool, pa_pptr root, const struct cell_place *place);

struct poolside_repair; /* scenarios_repair.c */

/** The pool of a history, and how to open it. */
struct poolside {
    pa_options options;
    struct pool_params params;
    pa_pool *pool;
    unsigned owners; /* in the root block; the last one is the judge's own, always null */
    pa_pptr root;
    unsigned judge_cores;
    bool no_root;       /* the root may not be there: the judge makes it */
    bool may_not_exist; /* the pool may not be there: the judge creates it */
    bool name_dirs;     /* an open names the further directories, else it finds them */
    bool fill_huge;     /* the judge fills it with huge blocks too */
    size_t creation;    /* the operation that is pa_create */
    uint64_t stamps;    /* made so far */
    char more[MORE_MAX][PATH_BYTES + NAME_BYTES];
    const char *dirs[MORE_MAX]; /* the further directories */
    struct poolside_repair *repair;
    struct cell_place *cells;
    uint32_t cells_count;
    struct {
        uint32_t anchor; /* owner cell */
        fptree *tree;
    } trees[TREES_MAX];
    unsigned trees_count;
};

static inline struct poolside *poolside_of(const struct history *h)
{
    return h->context;
}
/** Small pool: 1 MiB segments, lanes of entries, slots, cores. Not yet created. */
struct poolside *poolside_new(struct history *h, unsigned lanes, unsigned entries, unsigned slots, unsigned cores);
void poolside_fini(struct history *h);
/** Before it is created: spread over further directories "more-1" ... of the world. */
void poolside_spread(struct history *h, unsigned dirs);
/** Of a closed pool: the links to them are gone, durably after history_settle. */
int poolside_cut_links(struct history *h);

/* Each returns 0 or, after history_fail, -1. */
/** Create the pool, and a root block of owners owner pointers. */
int poolside_create(struct history *h, unsigned owners);
int poolside_root(struct history *h, unsigned owners);
/** Before it: the memory that the root block will get holds bytes that are not zero, and is free. */
int poolside_dirty_root(struct history *h, unsigned owners);
/** Instead of it: a root is ready, but its line is only in the cache when the process is killed. */
int poolside_root_in_cache(struct history *h, unsigned owners);
int poolside_open(struct history *h, unsigned cores);
int poolside_close(struct history *h);
/** What kill -9 does: nothing more is stored; what was stored is in the files but not durable for that. */
int poolside_kill(struct history *h);
/** Allocate into, and free, an owner cell. */
int poolside_alloc(struct history *h, uint32_t cell, size_t size);
int poolside_free(struct history *h, uint32_t cell);
int poolside_alloc_aligned(struct history *h, uint32_t cell, size_t size, size_t alignment);
/** pa_reallocate. moves: whether it must, or must not, give another block. */
enum poolside_move { STAYS, MOVES, EITHER };
int poolside_reallocate(struct history *h, uint32_t cell, size_t size, enum poolside_move moves);
/** Mark the beginning, the middle and the end of a block, durably. From then on the judge looks at the marks that a later
 *  reallocation keeps, and at the block's size, as long as the owner names a block. */
int poolside_stamp(struct history *h, uint32_t cell);
/** The i-th owner in the root. */
static inline uint32_t poolside_owner(unsigned i)
{
    return i;
}
/** A new cell inside the block that an owner names; an owner cell is set to null, a word cell to 0, durably. */
int poolside_cell_in(struct history *h, enum cell_kind kind, uint32_t block_owner, uint64_t offset, uint32_t *ret_cell);
/** Store a word durably. */
int poolside_set(struct history *h, uint32_t word_cell, uint64_t value);
/** Fill a block with bytes that are not zero, durably. */
int poolside_dirty(struct history *h, uint32_t cell);
/** What the pool's own thread does ahead of need: a segment for the free list, if that is empty. */
int poolside_spare(struct history *h);
/** After it: the small allocator takes that segment; the process is killed before its word of the table is written back. */
int poolside_segment_in_cache(struct history *h);
/** Delete a free segment; the process is killed before the word that announces it is written back, or (removed) the word that ends
 *  it. */
int poolside_deletion_in_cache(struct history *h, uint32_t slot, bool removed);
/** pa_defragment. must: there is something to give back. */
int poolside_defragment(struct history *h, uint64_t target_bytes, bool must);
/** The program copies an owner pointer into another owner cell and nulls the first. */
int poolside_move(struct history *h, uint32_t from, uint32_t to);
/** The cells inside owner's block mean nothing from the next free on. */
int poolside_free_with(struct history *h, uint32_t cell, const uint32_t *inside, unsigned count);
pa_pptr poolside_read(const struct history *h, uint32_t owner_cell);

int poolside_tree_open(struct history *h, uint32_t anchor, unsigned *ret_tree);
int poolside_tree_close(struct history *h, unsigned tree);
/** As poolside_kill, for the tree's handle; before it. */
int poolside_tree_abandon(struct history *h, unsigned tree);
int poolside_tree_has(struct history *h, unsigned tree, uint64_t key, bool *ret_there);
/** op: 'i' insert, 'u' upsert, 'r' remove. */
int poolside_tree_op(struct history *h, unsigned tree, char op, uint64_t key, uint64_t value);

void poolside_judge(struct judge *j, enum judge_phase phase);

#define TRY(call)                                                                                                      \
    if ((call) != 0)                                                                                                   \
    return -1

#define POOL_SCENARIO(NAME, TITLE, EVERY)                                                                              \
    const struct scenario scenario_##NAME = {.name = #NAME,                                                            \
                                             .title = TITLE,                                                           \
                                             .run = run_##NAME,                                                        \
                                             .judge = poolside_judge,                                                  \
                                             .fini = poolside_fini,                                                    \
                                             .nested_every = EVERY}

#endif
