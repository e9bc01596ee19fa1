/* SPDX-License-Identifier: BSD-3-Clause */
/* tree_private.h -- the handle, for the files of this folder. */
#ifndef FPTREE_TREE_PRIVATE_H
#define FPTREE_TREE_PRIVATE_H

#include "base/lock.h"
#include "fptree/tree.h"

struct tree_node;

/** A lock word of this generation cannot be met: rule LOG has no leaf locks. */
#define TREE_GENERATION_NONE UINT32_MAX

/** DRAM state of a micro-log. */
enum tree_log_state {
    TREE_LOG_IDLE,
    TREE_LOG_SPARE, /* owns a leaf */
    TREE_LOG_BUSY   /* one thread has it */
};

struct tree {
    /* Constant after tree_open. */
    struct tree_space space;
    const struct media *media;
    struct pm_tree_header *header;
    pa_off header_off;
    uint64_t generation; /* as it stands in lock words: 1 .. UINT32_MAX */
    enum tree_rule rule;
    /* Read without a lock, changed under smo. */
    _Alignas(64) uintptr_t root; /* struct tree_node, or-ed with the number of levels */
    /* Structure modifications (splits and merges). */
    _Alignas(64) struct lock smo; /* LOCK_RANK_TREE: changes of inner nodes, and all below */
    struct tree_node *free_nodes; /* linked by next_free */
    uint64_t free_node_count, reserved_nodes, node_count;
    uint64_t leaf_count;  /* leaves in the list */
    uint32_t spare_count; /* read without the lock as a hint */
    uint8_t log_state[TREE_LOGS];
};

/* off may be any number; the result is followed only if off is known to be a leaf's. */
static inline struct pm_tree_leaf *tree_leaf_at(const struct tree *t, pa_off off)
{
    return (struct pm_tree_leaf *)((uintptr_t)t->space.base + off);
}

static inline pa_off tree_off_of(const struct tree *t, const void *address)
{
    return (pa_off)((const char *)address - t->space.base);
}

static inline bool tree_is_head(const struct tree *t, const struct pm_tree_leaf *leaf)
{
    return leaf == &t->header->head;
}

static inline void tree_count(const struct tree *t, const struct media_tally *tally)
{
    if (t->space.count != NULL)
        t->space.count(t->space.context, tally);
}

/** Wait a little, longer with each call: the processor's pause, then the scheduler, then sleep. */
void tree_pause(unsigned *round);

#endif
