/* SPDX-License-Identifier: BSD-3-Clause */
/* tree_inner.c -- changes of the inner nodes. All under tree.smo; see tree_inner.h for what readers rely on. */
#include "fptree/tree_inner.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define BUILD_FILL 56u /* children per node when rebuilt: some room for the first splits */

/* --- nodes -------------------------------------------------------------------------------------------------------------- */

static struct tree_node *root_of(const struct tree *t, unsigned *ret_levels)
{
    *ret_levels = (unsigned)(t->root & TREE_LEVELS_MASK);
    return (struct tree_node *)(t->root & ~TREE_LEVELS_MASK);
}

static void set_root(struct tree *t, struct tree_node *n, unsigned levels)
{
    __atomic_store_n(&t->root, (uintptr_t)n | levels, __ATOMIC_RELEASE);
}

static void lock_node(struct tree_node *n)
{
    if ((n->version & 1) != 0)
        return; /* by this same change */
    __atomic_store_n(&n->version, n->version + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* odd before any of the changes can be seen */
}

static void unlock_node(struct tree_node *n)
{
    __atomic_store_n(&n->version, n->version + 1, __ATOMIC_RELEASE);
}

static void set_key(struct tree_node *n, unsigned i, uint64_t key)
{
    __atomic_store_n(&n->key[i], key, __ATOMIC_RELAXED);
    if (i % TREE_GROUP == TREE_GROUP - 1 && i != TREE_FANOUT - 1)
        __atomic_store_n(&n->pivot[i / TREE_GROUP], key, __ATOMIC_RELAXED);
}

static void set_child(struct tree_node *n, unsigned i, void *child)
{
    __atomic_store_n(&n->child[i], child, __ATOMIC_RELAXED);
}

/* Takes a node from the unused ones; odd, empty. */
static struct tree_node *take_node(struct tree *t)
{
    struct tree_node *n = t->free_nodes;
    t->free_nodes = n->next_free;
    t->free_node_count--;
    n->count = 0;
    for (unsigned i = 0; i < TREE_FANOUT; i++)
        set_key(n, i, UINT64_MAX);
    return n;
}

/* n is odd and stays so: a reader that still comes by starts over. */
static void drop_node(struct tree *t, struct tree_node *n)
{
    n->next_free = t->free_nodes;
    t->free_nodes = n;
    t->free_node_count++;
}

static int add_unused_node(struct tree *t)
{
    struct tree_node *n = aligned_alloc(64, sizeof *n);
    if (n == NULL)
        return error_set(PA_ENOMEM, "no memory for an inner node of a tree (%zu bytes)", sizeof *n);
    memset(n, 0, sizeof *n);
    n->version = 1;
    drop_node(t, n);
    t->node_count++;
    return 0;
}

int tree_inner_reserve(struct tree *t)
{
    unsigned need =
        (unsigned)(t->root & TREE_LEVELS_MASK) + 2; /* a split per level, a new root, and growth by another thread */
    while (t->free_node_count < t->reserved_nodes + need) {
        int code = add_unused_node(t);
        if (code != 0)
            return code;
    }
    t->reserved_nodes += TREE_HEIGHT_MAX; /* the height may change before the reservation ends: keep the sum simple */
    return 0;
}

void tree_inner_unreserve(struct tree *t)
{
    t->reserved_nodes -= TREE_HEIGHT_MAX;
}

struct tree_node *tree_inner_take_unused(struct tree *t)
{
    struct tree_node *list = NULL;
    while (t->free_node_count > t->reserved_nodes + TREE_HEIGHT_MAX) {
        struct tree_node *n = t->free_nodes;
        t->free_nodes = n->next_free;
        t->free_node_count--;
        t->node_count--;
        n->next_free = list;
        list = n;
    }
    return list;
}

void tree_inner_return_unused(struct tree *t, struct tree_node *list)
{
    while (list != NULL) {
        struct tree_node *n = list;
        list = n->next_free;
        drop_node(t, n);
        t->node_count++;
    }
}

void tree_inner_free_list(struct tree_node *list)
{
    while (list != NULL) {
        struct tree_node *n = list;
        list = n->next_free;
        free(n);
    }
}

/* --- paths -------------------------------------------------------------------------------------------------------------- */

/* From the root (0) to a lowest node (levels - 1). */
struct path {
    struct tree_node *node[TREE_HEIGHT_MAX];
    unsigned index[TREE_HEIGHT_MAX];
    unsigned levels;
};

static void find_path(const struct tree *t, uint64_t key, struct path *p)
{
    struct tree_node *n = root_of(t, &p->levels);
    for (unsigned l = 0; l < p->levels; l++) {
        p->node[l] = n;
        p->index[l] = tree_node_search(n, key);
        n = n->child[p->index[l]];
    }
}

/* --- insertion ---------------------------------------------------------------------------------------------------------- */

/* Child i keeps the keys up to sep, right becomes child i + 1. n is odd and not full. */
static void put_child(struct tree_node *n, unsigned i, uint64_t sep, void *right)
{
    for (unsigned j = n->count; j > i + 1; j--)
        set_child(n, j, n->child[j - 1]);
    for (unsigned j = n->count; j > i; j--)
        set_key(n, j, n->key[j - 1]);
    set_child(n, i + 1, right);
    set_key(n, i, sep);
    n->count++;
}

/* Moves the children of the full node n from `at` on to a new node; returns it and the key between the two. Both are odd. */
static struct tree_node *split_node(struct tree *t, struct tree_node *n, unsigned at, uint64_t *ret_sep)
{
    struct tree_node *right = take_node(t);
    *ret_sep = n->key[at - 1];
    for (unsigned j = at; j < n->count; j++) {
        set_child(right, j - at, n->child[j]);
        set_key(right, j - at, n->key[j]);
    }
    right->count = n->count - at;
    n->count = at;
    for (unsigned j = at - 1; j < TREE_FANOUT; j++)
        set_key(n, j, UINT64_MAX);
    return right;
}

/* The root was split: a new one above it. */
static void grow_root(struct tree *t, struct tree_node *left, uint64_t sep, struct tree_node *right, unsigned levels)
{
    struct tree_node *root = take_node(t);
    set_child(root, 0, left);
    set_child(root, 1, right);
    set_key(root, 0, sep);
    root->count = 2;
    unlock_node(root);
    set_root(t, root, levels + 1);
}

void tree_inner_insert(struct tree *t, uint64_t sep, struct pm_tree_leaf *right_leaf)
{
    struct path p;
    struct tree_node *split[TREE_HEIGHT_MAX];
    unsigned splits = 0;
    void *right = right_leaf;
    find_path(t, sep, &p);
    t->reserved_nodes -= TREE_HEIGHT_MAX;
    unsigned l = p.levels;
    for (;;) {
        l--;
        struct tree_node *n = p.node[l];
        unsigned i = p.index[l];
        lock_node(n);
        if (n->count < TREE_FANOUT) {
            put_child(n, i, sep, right);
            break;
        }
        /* At the right edge leave little room behind: ascending keys never come back there. */
        unsigned at = i == TREE_FANOUT - 1 ? TREE_FANOUT - 4 : TREE_FANOUT / 2;
        uint64_t middle;
        struct tree_node *upper = split_node(t, n, at, &middle);
        split[splits++] = upper;
        if (i < at)
            put_child(n, i, sep, right);
        else
            put_child(upper, i - at, sep, right);
        sep = middle;
        right = upper;
        if (l == 0) {
            grow_root(t, n, sep, upper, p.levels);
            break;
        }
    }
    for (unsigned s = 0; s < splits; s++)
        unlock_node(split[s]);
    for (; l < p.levels; l++) /* the highest first: a reader below then sees that its parent changed */
        unlock_node(p.node[l]);
    __atomic_store_n(&t->leaf_count, t->leaf_count + 1, __ATOMIC_RELAXED);
}

/* --- removal ------------------------------------------------------------------------------------------------------------ */

static void cut_child(struct tree_node *n, unsigned i)
{
    unsigned key = i > 0 ? i - 1 : 0; /* the left neighbour takes the range; for child 0 it is in another node */
    for (unsigned j = i; j + 1 < n->count; j++)
        set_child(n, j, n->child[j + 1]);
    for (unsigned j = key; j + 1 < TREE_FANOUT; j++)
        set_key(n, j, n->key[j + 1]);
    set_key(n, TREE_FANOUT - 1, UINT64_MAX);
    n->count--;
}

/* One level fewer for as long as the root has one child. */
static void shrink_root(struct tree *t)
{
    unsigned levels;
    struct tree_node *root = root_of(t, &levels);
    while (levels > 1 && root->count == 1) {
        struct tree_node *child = root->child[0];
        lock_node(root);
        set_root(t, child, --levels);
        drop_node(t, root);
        root = child;
    }
}

void tree_inner_remove(struct tree *t, uint64_t low)
{
    struct path p;
    find_path(t, low + 1, &p);
    unsigned bottom = p.levels - 1, l = bottom;
    while (p.node[l]->count == 1) /* never up to the root: the head is in the tree too */
        lock_node(p.node[l--]);
    lock_node(p.node[l]);
    unsigned cut = l, top = l;
    if (p.index[l] == 0) {
        /* The left neighbour is below another child of the first ancestor that we did not enter by child 0. */
        uint64_t high = p.node[l]->key[0];
        do
            lock_node(p.node[--top]);
        while (p.index[top] == 0);
        set_key(p.node[top], p.index[top] - 1, high);
    }
    cut_child(p.node[cut], p.index[cut]);
    for (unsigned i = cut + 1; i <= bottom; i++)
        drop_node(t, p.node[i]);
    for (unsigned i = top; i <= cut; i++)
        unlock_node(p.node[i]);
    __atomic_store_n(&t->leaf_count, t->leaf_count - 1, __ATOMIC_RELAXED);
    shrink_root(t);
}

/* --- building ----------------------------------------------------------------------------------------------------------- */

/* Replaces n children and their lows by their parents'. Every node made is also put into *built. */
static int build_level(struct tree *t, void **children, uint64_t *lows, size_t *n, struct tree_node **built)
{
    size_t parents = 0;
    for (size_t i = 0; i < *n;) {
        int code = add_unused_node(t);
        if (code != 0)
            return code;
        struct tree_node *node = take_node(t);
        node->next_free = *built;
        *built = node;
        uint64_t low = lows[i];
        for (; i < *n && node->count < BUILD_FILL; i++) {
            set_child(node, node->count, children[i]);
            if (i + 1 < *n && node->count + 1 < BUILD_FILL)
                set_key(node, node->count, lows[i + 1]);
            node->count++;
        }
        unlock_node(node);
        children[parents] = node;
        lows[parents++] = low;
    }
    *n = parents;
    return 0;
}

int tree_inner_build(struct tree *t, struct pm_tree_leaf *const *leaves, const uint64_t *lows, size_t n)
{
    void **children = malloc(n * sizeof *children);
    uint64_t *bounds = malloc(n * sizeof *bounds);
    struct tree_node *built = NULL;
    unsigned levels = 0;
    int code = children == NULL || bounds == NULL
                   ? error_set(PA_ENOMEM, "no memory to rebuild the inner nodes over %zu leaves", n)
                   : 0;
    if (code == 0) {
        memcpy(children, leaves, n * sizeof *children);
        memcpy(bounds, lows, n * sizeof *bounds);
        t->leaf_count = n;
        do {
            code = build_level(t, children, bounds, &n, &built);
            levels++;
        } while (code == 0 && n > 1);
    }
    if (code == 0)
        set_root(t, children[0], levels);
    else
        tree_inner_free_list(built);
    free(bounds);
    free(children);
    return code;
}

static void free_below(struct tree_node *n, unsigned levels)
{
    if (levels > 1)
        for (unsigned i = 0; i < n->count; i++)
            free_below(n->child[i], levels - 1);
    free(n);
}

void tree_inner_fini(struct tree *t)
{
    unsigned levels;
    struct tree_node *root = root_of(t, &levels);
    if (root != NULL)
        free_below(root, levels);
    tree_inner_free_list(t->free_nodes);
    t->free_nodes = NULL;
    t->root = 0;
}
