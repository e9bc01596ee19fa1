/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree_inner.h -- the inner nodes: in DRAM, rebuilt at open, read without locks.
 *
 * Child i of a node has the keys in (key[i - 1], key[i]]; key[i] is UINT64_MAX from the last child on, so a node's range is
 * closed by its ancestors. The lowest nodes' children are leaves. pivot[g] repeats key[8 * g + 7], beside the version: a search
 * reads that line, one line of keys and one of children.
 *
 * A node's version is odd while it changes, and grows for ever: nodes are reused, never freed while a reader may look. Nodes change
 * under tree.smo only. Whenever the range of a node or leaf changes, every node between it and the highest node whose keys
 * change is odd at the same time; so a reader that validates a parent after reading the child's version is on the right path.
 */
#ifndef FPTREE_TREE_INNER_H
#define FPTREE_TREE_INNER_H

#include "fptree/tree_leaf.h"

#define TREE_FANOUT      64u
#define TREE_GROUP       8u
#define TREE_HEIGHT_MAX  12u /* 32^12 leaves */
#define TREE_LEVELS_MASK ((uintptr_t)63)

struct tree_node {
    uint64_t version;
    uint64_t pivot[TREE_FANOUT / TREE_GROUP - 1];
    uint64_t key[TREE_FANOUT];
    void *child[TREE_FANOUT]; /* struct tree_node or struct pm_tree_leaf */
    uint32_t count;           /* children; under smo */
    struct tree_node *next_free;
} __attribute__((aligned(64)));

/** Where a descent ended. */
struct tree_place {
    struct pm_tree_leaf *leaf;
    uint64_t word;             /* the leaf's lock word; not locked */
    uint64_t high;             /* highest key of the leaf's range */
    struct pm_tree_leaf *next; /* the next leaf if the same node has it, for prefetching only; else NULL */
};

static inline uint64_t tree_node_version(const struct tree_node *n)
{
    return __atomic_load_n(&n->version, __ATOMIC_ACQUIRE);
}

static inline bool tree_node_is_unchanged(const struct tree_node *n, uint64_t version)
{
    tree_load_fence();
    return tree_load(&n->version) == version;
}

static inline void *tree_node_child(const struct tree_node *n, unsigned i)
{
    return __atomic_load_n(&n->child[i], __ATOMIC_RELAXED);
}

/** Index of the child whose range holds key. In range even while the node changes. */
static inline unsigned tree_node_search(const struct tree_node *n, uint64_t key)
{
    unsigned i = 0;
    for (unsigned g = 0; g < TREE_FANOUT / TREE_GROUP - 1; g++)
        i += tree_load(&n->pivot[g]) < key;
    i *= TREE_GROUP;
    __builtin_prefetch(&n->child[i]);
    const uint64_t *k = &n->key[i];
    for (unsigned j = 0; j < TREE_GROUP - 1; j++)
        i += tree_load(&k[j]) < key;
    return i;
}

/** One attempt to find the leaf for key; false = something changed, start over. with_high also fills in high and next. */
static inline __attribute__((always_inline)) bool tree_descend_once(const struct tree *t, uint64_t key,
                                                                    struct tree_place *p, bool with_high)
{
    uintptr_t root = __atomic_load_n(&t->root, __ATOMIC_ACQUIRE);
    const struct tree_node *n = (const struct tree_node *)(root & ~TREE_LEVELS_MASK);
    uint64_t version = tree_node_version(n);
    if ((version & 1) != 0 || __atomic_load_n(&t->root, __ATOMIC_RELAXED) != root)
        return false;
    p->high = UINT64_MAX;
    for (uintptr_t level = root & TREE_LEVELS_MASK;; level--) {
        unsigned i = tree_node_search(n, key);
        void *child = tree_node_child(n, i);
        if (with_high) {
            uint64_t high = tree_load(&n->key[i]);
            p->high = high < p->high ? high : p->high;
            p->next = i + 1 < TREE_FANOUT ? tree_node_child(n, i + 1) : NULL;
        }
        if (!tree_node_is_unchanged(n, version))
            return false; /* before child is followed: it may be anything */
        if (level == 1) {
            p->leaf = child;
            p->word = tree_leaf_word(p->leaf);
            return tree_node_is_unchanged(n, version) && !tree_word_is_locked(t, p->word);
        }
        const struct tree_node *lower = child;
        uint64_t lower_version = tree_node_version(lower);
        if ((lower_version & 1) != 0 || !tree_node_is_unchanged(n, version))
            return false;
        n = lower;
        version = lower_version;
    }
}

/** Find the unlocked leaf whose range holds key; waits for writers. The caller is in a read section. */
static inline __attribute__((always_inline)) void tree_descend(const struct tree *t, uint64_t key, struct tree_place *p,
                                                               bool with_high)
{
    unsigned round = 0;
    while (__builtin_expect(!tree_descend_once(t, key, p, with_high), 0))
        tree_pause(&round);
}

/** Node blocks that the next change of the inner nodes may need are set aside, so that it cannot fail. Under smo. PA_ENOMEM. */
int tree_inner_reserve(struct tree *t);
void tree_inner_unreserve(struct tree *t);
/** Put right, with the keys above sep, after the leaf whose range holds sep. Needs a reservation, which it ends. Under smo. */
void tree_inner_insert(struct tree *t, uint64_t sep, struct pm_tree_leaf *right);
/** Take out the leaf whose range begins after low; its left neighbour's range grows. Not the head. Under smo. */
void tree_inner_remove(struct tree *t, uint64_t low);
/** Build from n >= 1 leaves; lows[i] is leaf i's low. PA_ENOMEM. */
int tree_inner_build(struct tree *t, struct pm_tree_leaf *const *leaves, const uint64_t *lows, size_t n);
/** Free every node. */
void tree_inner_fini(struct tree *t);
/** Take the unused nodes off the tree, for freeing after a grace period. Under smo. */
struct tree_node *tree_inner_take_unused(struct tree *t);
/** Put them back. Under smo. */
void tree_inner_return_unused(struct tree *t, struct tree_node *list);
void tree_inner_free_list(struct tree_node *list);

#endif
