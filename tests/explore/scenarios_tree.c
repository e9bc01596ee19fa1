/* SPDX-License-Identifier: BSD-3-Clause */
/* scenarios_tree.c -- histories of the FPTree. A leaf has 40 entries, so a hundred keys split and empty leaves. */
#include "tests/explore/poolside.h"

static int start(struct history *h, unsigned *ret_tree)
{
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 5));
    return poolside_tree_open(h, poolside_owner(0), ret_tree);
}

static int finish(struct history *h, unsigned tree)
{
    TRY(poolside_tree_close(h, tree));
    return poolside_close(h);
}

static int run_tree_create(struct history *h)
{
    unsigned tree;
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 5));
    history_from_here(h);
    TRY(poolside_tree_open(h, poolside_owner(0), &tree));
    TRY(poolside_tree_op(h, tree, 'i', 7, 70));
    TRY(poolside_tree_close(h, tree));
    TRY(poolside_tree_open(h, poolside_owner(0), &tree));
    TRY(poolside_tree_op(h, tree, 'r', 7, 0));
    TRY(poolside_tree_op(h, tree, 'i', 8, 80)); /* into the slot that has just come free */
    TRY(poolside_tree_op(h, tree, 'r', 8, 0));
    return finish(h, tree);
}

/* Header and leaves are made where the program had written. */
static int run_tree_dirty(struct history *h)
{
    static const size_t sizes[] = {2560, 768};
    unsigned tree;
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 41));
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 1; i < 12; i++) {
            TRY(poolside_alloc(h, poolside_owner(i), sizes[round]));
            TRY(poolside_dirty(h, poolside_owner(i)));
        }
        for (unsigned i = 1; i < 12; i++)
            TRY(poolside_free(h, poolside_owner(i)));
    }
    history_from_here(h);
    TRY(poolside_tree_open(h, poolside_owner(0), &tree));
    for (unsigned i = 0; i < 44; i++)
        TRY(poolside_tree_op(h, tree, 'i', i * 7 % 44 + 1, i));
    return finish(h, tree);
}

static int run_tree_change(struct history *h)
{
    unsigned tree;
    TRY(start(h, &tree));
    history_from_here(h);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t key = history_random(h, 12);
        bool there = false;
        TRY(poolside_tree_has(h, tree, key, &there));
        char op = !there ? (history_random(h, 2) ? 'i' : 'u') : history_random(h, 2) ? 'u' : 'r';
        TRY(poolside_tree_op(h, tree, op, key, 100 + i));
    }
    return finish(h, tree);
}

static int run_tree_split(struct history *h)
{
    unsigned tree;
    TRY(start(h, &tree));
    for (unsigned i = 0; i < 38; i++)
        TRY(poolside_tree_op(h, tree, 'i', 10 * (i * 7 % 38) + 10, i));
    history_from_here(h);
    for (unsigned i = 0; i < 50; i++)
        TRY(poolside_tree_op(h, tree, 'i', 10 * (i * 11 % 50) + 15, 1000 + i));
    return finish(h, tree);
}

/* Ascending and descending removal, down to the empty tree. */
static int run_tree_remove(struct history *h)
{
    unsigned tree;
    TRY(start(h, &tree));
    for (unsigned i = 0; i < 100; i++)
        TRY(poolside_tree_op(h, tree, 'i', i * 37 % 100 + 1, i));
    for (unsigned i = 1; i <= 30; i++)
        TRY(poolside_tree_op(h, tree, 'r', i * 3, 0));
    history_from_here(h);
    for (uint64_t key = 1; key <= 100; key++) {
        bool there = false;
        uint64_t k = key % 2 != 0 ? key : 101 - key + key % 2;
        TRY(poolside_tree_has(h, tree, k, &there));
        if (there)
            TRY(poolside_tree_op(h, tree, 'r', k, 0));
    }
    for (uint64_t key = 1; key <= 100; key++) {
        bool there = false;
        TRY(poolside_tree_has(h, tree, key, &there));
        if (there)
            TRY(poolside_tree_op(h, tree, 'r', key, 0));
    }
    TRY(poolside_tree_op(h, tree, 'i', 5, 5));
    return finish(h, tree);
}

/* Killed in the middle, opened, went on. */
static int run_tree_recovery(struct history *h)
{
    unsigned tree;
    TRY(start(h, &tree));
    for (unsigned i = 0; i < 45; i++)
        TRY(poolside_tree_op(h, tree, 'i', i * 29 % 90, i));
    history_from_here(h);
    for (unsigned round = 0; round < 4; round++) {
        TRY(poolside_tree_abandon(h, tree));
        TRY(poolside_kill(h));
        TRY(poolside_open(h, 1));
        TRY(poolside_tree_open(h, poolside_owner(0), &tree));
        for (unsigned i = 0; i < 14; i++) {
            uint64_t key = history_random(h, 90);
            bool there = false;
            TRY(poolside_tree_has(h, tree, key, &there));
            TRY(poolside_tree_op(h, tree, there ? 'r' : 'i', key, round));
        }
    }
    return finish(h, tree);
}

POOL_SCENARIO(tree_create, "an FPTree is created, closed and opened", 4);
POOL_SCENARIO(tree_dirty, "an FPTree is made where the program had written", 16);
POOL_SCENARIO(tree_change, "inserts, updates and removals in one leaf", 8);
POOL_SCENARIO(tree_split, "leaves split", 16);
POOL_SCENARIO(tree_remove, "leaves merge and are removed, down to the empty tree", 16);
POOL_SCENARIO(tree_recovery, "killed and recovered, again and again", 8);
