/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree_log.c -- rule LOG: the caller's log covers the changes of leaves.
 *
 * step                                                    | durable after it | a crash here recovers by
 * --------------------------------------------------------+------------------+------------------------------------------
 * 1 tree_prepare: new entries into free slots, write-back | maybe            | nothing: the slots are free
 *   started                                               |                  |
 * 2 the caller logs {leaf, slots, key, value}; fence      | the decision and | the caller's recovery calls tree_redo
 *                                                         | the entries      |
 * 3 tree_redo: fingerprint, bitmap, LSN in place, not      | maybe            | tree_refill, fence, tree_redo, if the
 *   written back                                          |                  | header line has an older LSN
 *
 * A header line that has the LSN implies that 2's fence, or tree_refill's, was passed, so the entries are durable then. For a
 * header line that has an older one the log entry gives key and value, in case their line did not arrive, or holds what an
 * older entry of the same recovery has put there.
 */
#include "base/error.h"
#include "fptree/tree_inner.h"
#include "fptree/tree_split.h"

static struct pm_tree_leaf *leaf_of(const struct tree *t, uint64_t key)
{
    struct tree_place p;
    tree_descend(t, key, &p, false);
    return p.leaf;
}

/* Slots of the leaf that earlier changes of the group have taken. */
static uint64_t taken_slots(const struct tree_change *changes, size_t n, pa_off leaf)
{
    uint64_t taken = 0;
    for (size_t i = 0; i < n; i++)
        if (changes[i].leaf == leaf && changes[i].set != TREE_NO_SLOT)
            taken |= UINT64_C(1) << changes[i].set;
    return taken;
}

/* Slots of the leaf that earlier changes of the group give up. */
static unsigned cleared_slots(const struct tree_change *changes, size_t n, pa_off leaf)
{
    unsigned cleared = 0;
    for (size_t i = 0; i < n; i++)
        cleared += changes[i].leaf == leaf && changes[i].clear != TREE_NO_SLOT;
    return cleared;
}

/* Places change i. False: its leaf is full and must be split. */
static bool place(const struct tree *t, struct tree_change *changes, const bool *remove, size_t i)
{
    struct tree_change *c = &changes[i];
    struct pm_tree_leaf *leaf = leaf_of(t, c->key);
    c->leaf = tree_off_of(t, leaf);
    c->clear = (uint8_t)tree_leaf_find(leaf, c->key);
    c->set = TREE_NO_SLOT;
    if (remove[i])
        return true;
    uint64_t room = tree_leaf_free(t, leaf, c->key) & ~taken_slots(changes, i, c->leaf);
    /* A new key leaves a slot for the next update, so that an update never splits: freeing must not need space. */
    unsigned after = (unsigned)__builtin_popcountll(room) + cleared_slots(changes, i, c->leaf);
    if (room == 0 || (c->clear == TREE_NO_SLOT && after < 2))
        return false;
    c->set = (uint8_t)__builtin_ctzll(room);
    return true;
}

int tree_prepare(struct tree *t, struct tree_change *changes, const bool *remove, size_t n, uint64_t lsn,
                 struct media_tally *tally)
{
    for (size_t i = 0; i < n; i++)
        if (changes[i].key == 0)
            return error_set(PA_EINVAL, "key 0 cannot be in a tree that a log covers");
    unsigned splits = 0;
    for (size_t i = 0; i < n;) {
        if (place(t, changes, remove, i)) {
            if (remove[i] && changes[i].clear == TREE_NO_SLOT)
                return error_set(PA_ENOENT, "no such key in the tree");
            i++;
            continue;
        }
        bool placed;
        if (splits++ > 4 * TREE_CHANGES_MAX)
            return error_set(PA_ECORRUPT, "splitting the leaf of key %#llx makes no room; check the tree",
                             (unsigned long long)changes[i].key);
        int code = tree_split(t, leaf_of(t, changes[i].key), NULL, &placed, lsn, tally);
        if (code != 0)
            return code;
        i = 0; /* slots of earlier changes may have moved */
    }
    for (size_t i = 0; i < n; i++) {
        if (changes[i].set == TREE_NO_SLOT)
            continue;
        struct pm_tree_leaf *leaf = tree_leaf_at(t, changes[i].leaf);
        tree_leaf_fill(t->media, leaf, changes[i].set, changes[i].key, changes[i].value);
        media_flush(t->media, tally, &leaf->entry[changes[i].set], sizeof leaf->entry[0]);
    }
    return 0;
}

static void redo_change(const struct media *m, struct pm_tree_leaf *leaf, const struct tree_change *c)
{
    uint64_t bitmap = tree_load(&leaf->bitmap);
    if (c->clear != TREE_NO_SLOT)
        bitmap &= ~(UINT64_C(1) << c->clear);
    if (c->set != TREE_NO_SLOT) {
        if (leaf->entry[c->set].key != c->key || leaf->entry[c->set].value != c->value) {
            struct media_tally uncounted = {0};
            tree_leaf_fill(m, leaf, c->set, c->key, c->value); /* in recovery only */
            media_flush(m, &uncounted, &leaf->entry[c->set], sizeof leaf->entry[0]);
        }
        tree_leaf_mark(m, leaf, c->set, c->key);
        bitmap |= UINT64_C(1) << c->set;
    }
    media_store64(m, &leaf->bitmap, bitmap);
}

void tree_refill(const struct media *m, struct media_tally *t, char *base, const struct tree_change *changes, size_t n,
                 uint64_t lsn)
{
    for (size_t i = 0; i < n; i++) {
        const struct tree_change *c = &changes[i];
        struct pm_tree_leaf *leaf = (struct pm_tree_leaf *)(base + c->leaf);
        if (c->set == TREE_NO_SLOT || tree_load(&leaf->lsn) >= lsn)
            continue;
        if (leaf->entry[c->set].key != c->key || leaf->entry[c->set].value != c->value)
            tree_leaf_fill(m, leaf, c->set, c->key, c->value);
        media_flush(m, t, &leaf->entry[c->set], sizeof leaf->entry[0]);
    }
    media_drain(m, t); /* before the header line: one that has the LSN vouches for the entries */
}

static bool is_repeated(const struct tree_change *changes, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (changes[j].leaf == changes[i].leaf)
            return true;
    return false;
}

void tree_redo(const struct media *m, char *base, const struct tree_change *changes, size_t n, uint64_t lsn)
{
    for (size_t i = 0; i < n; i++) {
        struct pm_tree_leaf *leaf = (struct pm_tree_leaf *)(base + changes[i].leaf);
        if (is_repeated(changes, i) || tree_load(&leaf->lsn) >= lsn)
            continue;
        for (size_t j = i; j < n; j++)
            if (changes[j].leaf == changes[i].leaf)
                redo_change(m, leaf, &changes[j]);
        media_store64(m, &leaf->lsn, lsn); /* last: whatever prefix arrives, the LSN vouches for all before it */
    }
}

#define TRIM_MAX 28u

void tree_trim(struct tree *t, uint64_t key, uint64_t lsn)
{
    struct media_tally tally = {0};
    struct pm_tree_leaf *leaf = leaf_of(t, key);
    if (!tree_is_head(t, leaf)) {
        struct pm_tree_leaf *left = leaf_of(t, leaf->low);
        if (tree_leaf_used(left) + tree_leaf_used(leaf) <= TRIM_MAX)
            tree_merge(t, left, leaf, lsn, &tally);
        tree_give_back(t, false);
    }
    tree_count(t, &tally);
}
