/* SPDX-License-Identifier: BSD-3-Clause */
/* tree.c -- operations on one key, rule SELF. See tree.h. */
#include "fptree/tree.h"

#include <sched.h>
#include <time.h>

#include "base/error.h"
#include "fptree/tree_inner.h"
#include "fptree/tree_rcu.h"
#include "fptree/tree_split.h"

void tree_pause(unsigned *round)
{
    if (++*round < 64) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    } else if (*round < 512) {
        sched_yield();
    } else {
        /* The holder may be of lower priority: let it run. */
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

int tree_find(const struct tree *t, uint64_t key, uint64_t *ret_value)
{
    struct tree_place p;
    uint64_t value = 0;
    unsigned slot, round = 0;
    tree_read_lock();
    for (;;) {
        tree_descend(t, key, &p, false);
        slot = tree_leaf_find(p.leaf, key);
        if (slot != TREE_NO_SLOT)
            value = tree_load(&p.leaf->entry[slot].value);
        if (__builtin_expect(tree_leaf_is_unchanged(p.leaf, p.word), 1))
            break;
        tree_pause(&round);
    }
    tree_read_unlock();
    if (slot == TREE_NO_SLOT)
        return error_set(PA_ENOENT, "no such key in the tree");
    *ret_value = value;
    return 0;
}

/* The leaf for key, locked, and clean in this open. */
static struct pm_tree_leaf *lock_leaf_of(const struct tree *t, uint64_t key, struct media_tally *tally)
{
    struct tree_place p;
    unsigned round = 0;
    for (;;) {
        tree_descend(t, key, &p, false);
        if (__builtin_expect(tree_leaf_lock(t, p.leaf, p.word), 1))
            break;
        tree_pause(&round);
    }
    if (__builtin_expect(!tree_word_is_current(t, p.word), 0))
        tree_leaf_clean(t, p.leaf, tally);
    return p.leaf;
}

static int writable(const struct tree *t)
{
    if (__builtin_expect(t->media->read_only, 0))
        return error_set(PA_EACCES, "the pool is open read-only; the tree cannot change");
    return 0;
}

/* Only damage on media leads here. */
static int no_room(const struct tree *t, const struct pm_tree_leaf *leaf)
{
    return error_set(PA_ECORRUPT, "the leaf at %#llx has no room where it must have some; check the tree",
                     (unsigned long long)tree_off_of(t, leaf));
}

/* The key is not in the leaf, which is locked. */
static int add(struct tree *t, struct pm_tree_leaf *leaf, uint64_t key, uint64_t value, struct media_tally *tally)
{
    uint64_t room = tree_leaf_free(t, leaf, key);
    if (__builtin_expect(room == 0, 0)) {
        bool placed;
        struct pm_tree_entry extra = {key, value};
        if (key == 0)
            return no_room(t, leaf); /* its slot holds another key */
        int code = tree_split(t, leaf, &extra, &placed, 0, tally);
        if (code != 0 || placed)
            return code;
        room = tree_leaf_free(t, leaf, key);
        if (room == 0)
            return no_room(t, leaf);
    }
    tree_leaf_insert(t, leaf, (unsigned)__builtin_ctzll(room), key, value, tally);
    return 0;
}

static int put(struct tree *t, uint64_t key, uint64_t value, bool replace)
{
    struct media_tally tally = {0};
    int code = writable(t);
    if (code != 0)
        return code;
    tree_read_lock();
    struct pm_tree_leaf *leaf = lock_leaf_of(t, key, &tally);
    unsigned slot = tree_leaf_find(leaf, key);
    if (slot == TREE_NO_SLOT)
        code = add(t, leaf, key, value, &tally);
    else if (replace)
        tree_leaf_update(t, leaf, slot, value, &tally);
    else
        code = error_set(PA_EEXIST, "the key is in the tree already");
    tree_leaf_unlock(t, leaf, code == 0);
    tree_read_unlock();
    tree_count(t, &tally);
    return code;
}

int tree_insert(struct tree *t, uint64_t key, uint64_t value)
{
    return put(t, key, value, false);
}

int tree_upsert(struct tree *t, uint64_t key, uint64_t value)
{
    return put(t, key, value, true);
}

/* --- removal ------------------------------------------------------------------------------------------------------------ */

/* Is this the moment to look whether a leaf, down to `used` entries, should go? Empty: always. Else at few sizes, so that a
 * sparse leaf beside a full one is not looked at again and again. */
static bool is_sparse(unsigned used)
{
    return used == 0 || used == 3 || used == 6 || used == 12;
}

#define MERGED_MAX 28u /* leaves room, so that the next inserts do not split again */

/* Locks the leaf before the one that holds the lock on right. A thread waits for lower leaves only: no cycle. */
static struct pm_tree_leaf *lock_left_of(const struct tree *t, const struct pm_tree_leaf *right,
                                         struct media_tally *tally)
{
    for (unsigned round = 0;; tree_pause(&round)) {
        struct pm_tree_leaf *left = lock_leaf_of(t, right->low, tally);
        if (left->next == tree_off_of(t, right))
            return left;
        tree_leaf_unlock(t, left, false); /* a split came between; the inner nodes will show it */
    }
}

/* leaf, locked, has few entries left: merge it with its left neighbour if they fit. True: leaf is gone, do not unlock it. */
static bool merge_sparse(struct tree *t, struct pm_tree_leaf *leaf, struct media_tally *tally)
{
    unsigned used = tree_leaf_used(leaf);
    if (tree_is_head(t, leaf))
        return false;
    struct pm_tree_leaf *left = lock_left_of(t, leaf, tally);
    bool merged = false;
    if (used == 0 || tree_leaf_used(left) + used <= MERGED_MAX)
        merged = tree_merge(t, left, leaf, 0, tally);
    tree_leaf_unlock(t, left, merged);
    return merged;
}

void tree_drop_empty(struct tree *t, uint64_t low, struct media_tally *tally)
{
    tree_read_lock();
    struct pm_tree_leaf *leaf = lock_leaf_of(t, low + 1, tally);
    if (tree_leaf_used(leaf) != 0 || !merge_sparse(t, leaf, tally))
        tree_leaf_unlock(t, leaf, false);
    tree_read_unlock();
}

int tree_remove(struct tree *t, uint64_t key)
{
    struct media_tally tally = {0};
    int code = writable(t);
    if (code != 0)
        return code;
    bool gone = false;
    tree_read_lock();
    struct pm_tree_leaf *leaf = lock_leaf_of(t, key, &tally);
    unsigned slot = tree_leaf_find(leaf, key);
    if (slot == TREE_NO_SLOT) {
        code = error_set(PA_ENOENT, "no such key in the tree");
    } else {
        tree_leaf_erase(t, leaf, slot, &tally);
        if (is_sparse(tree_leaf_used(leaf)))
            gone = merge_sparse(t, leaf, &tally);
    }
    if (!gone)
        tree_leaf_unlock(t, leaf, code == 0);
    tree_read_unlock();
    if (gone)
        tree_give_back(t, false);
    tree_count(t, &tally);
    return code;
}
