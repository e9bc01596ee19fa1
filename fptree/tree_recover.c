/* SPDX-License-Identifier: BSD-3-Clause */
/* tree_recover.c -- open: format or recover, then rebuild the inner nodes; and the check of a whole tree. */
#include <stdlib.h>

#include "base/error.h"
#include "fptree/tree_inner.h"
#include "fptree/tree_rcu.h"
#include "fptree/tree_split.h"

#if defined(TREE_TSAN)
unsigned tree_rcu_order;
#endif

/* --- the header --------------------------------------------------------------------------------------------------------- */

static struct pm_tree_header constants(const struct tree *t)
{
    struct pm_tree_header h = {.version = TREE_VERSION,
                               .self = t->header_off,
                               .rule = t->rule,
                               .leaf_bytes = sizeof(struct pm_tree_leaf),
                               .logs = TREE_LOGS};
    h.checksum = tree_header_checksum(&h);
    return h;
}

/*
 * Format.
 *
 * step                                         | durable after it           | a crash here recovers by
 * ---------------------------------------------+----------------------------+----------------------------------------
 * 0 the owner of the block names it            | two lines, all zero        | from 1
 * 1 everything but the first line; fence       | an empty head, idle logs   | from 1
 * 2 the first line, magic last                 | maybe a prefix             | magic 0 and generation 0: from 1
 * 3 settle, fence                              | the tree                   | as any recovery
 */
static void format(const struct tree *t, struct media_tally *tally)
{
    struct pm_tree_header *h = t->header;
    const struct media *m = t->media;
    struct pm_tree_header first = constants(t);
    media_set(m, &h->generation, 0,
              offsetof(struct pm_tree_header, head) - offsetof(struct pm_tree_header, generation));
    media_flush(m, tally, &h->generation,
                offsetof(struct pm_tree_header, head) - offsetof(struct pm_tree_header, generation));
    /* Rule LOG: entries of before are about a leaf that stood in the same place. */
    tree_leaf_format(t, &h->head, 0, 0, t->rule == TREE_RULE_LOG ? t->space.newest_lsn : 0, NULL, 0, tally);
    media_drain(m, tally); /* before the first line says that the rest is there */
    media_write(m, &h->version, &first.version,
                offsetof(struct pm_tree_header, generation) - offsetof(struct pm_tree_header, version));
    media_store64(m, &h->magic, TREE_MAGIC);
}

/* Is the first line one that only a crash in format, or nothing yet, has left? With a generation the tree was whole once. */
static bool is_unformatted(const struct pm_tree_header *h, const struct pm_tree_header *expected)
{
    const uint64_t *words = (const uint64_t *)h, *want = (const uint64_t *)expected;
    for (unsigned i = 0; i < MEDIA_LINE_BYTES / sizeof *words; i++)
        if (words[i] != 0 && (i == 0 || words[i] != want[i]))
            return false;
    return h->generation == 0;
}

static int check_header(const struct tree *t)
{
    const struct pm_tree_header *h = t->header;
    if (h->magic != TREE_MAGIC)
        return error_set(PA_ECORRUPT, "the block at %#llx is no tree (magic %#llx)", (unsigned long long)t->header_off,
                         (unsigned long long)h->magic);
    if (h->checksum != tree_header_checksum(h))
        return error_set(PA_ECORRUPT, "the tree at %#llx has a damaged header (checksum)",
                         (unsigned long long)t->header_off);
    if (h->version != TREE_VERSION)
        return error_set(PA_EVERSION, "the tree at %#llx has format %llu, this library knows %u",
                         (unsigned long long)t->header_off, (unsigned long long)h->version, TREE_VERSION);
    if (h->self != t->header_off || h->rule != t->rule || h->leaf_bytes != sizeof(struct pm_tree_leaf) ||
        h->logs != TREE_LOGS)
        return error_set(PA_ECORRUPT, "the tree header at %#llx belongs to another place (%#llx) or use",
                         (unsigned long long)t->header_off, (unsigned long long)h->self);
    return 0;
}

/*
 * From here on no lock word that an earlier open left on media means anything, and the tree is not closed. Not written back: if
 * power fails and brings the old line back, the next open counts to this generation again, but voids its lock words
 * (check_leaves); and a tree that is called closed again needs no settle, for nothing is in caches only then.
 */
static void begin_generation(struct tree *t)
{
    struct pm_tree_header *h = t->header;
    if (t->rule == TREE_RULE_LOG) {
        t->generation = TREE_GENERATION_NONE;
    } else {
        t->generation = (h->generation + 1) % TREE_GENERATION_NONE;
        if (t->generation == 0)
            t->generation = 1;
    }
    media_store64(t->media, &h->generation, t->rule == TREE_RULE_LOG ? 1 : t->generation);
    media_store64(t->media, &h->closed, 0); /* before any leaf changes: all of it is seen when only the process dies */
}

/* Not written back: if the word does not arrive, the next open does what it need not. */
static void end_generation(struct tree *t)
{
    media_store64(t->media, &t->header->closed, t->header->generation);
}

static bool is_closed(const struct tree *t)
{
    return t->header->generation != 0 && t->header->closed == t->header->generation;
}

/* --- rebuilding --------------------------------------------------------------------------------------------------------- */

struct walk {
    struct pm_tree_leaf **leaves;
    uint64_t *lows;
    size_t count, capacity;
};

static int walk_add(struct walk *w, struct pm_tree_leaf *leaf)
{
    if (w->count == w->capacity) {
        size_t capacity = w->capacity == 0 ? 64 : w->capacity * 2;
        void *leaves = realloc(w->leaves, capacity * sizeof *w->leaves);
        if (leaves != NULL)
            w->leaves = leaves;
        void *lows = realloc(w->lows, capacity * sizeof *w->lows);
        if (lows != NULL)
            w->lows = lows;
        if (leaves == NULL || lows == NULL)
            return error_set(PA_ENOMEM, "no memory to list the leaves of a tree (%zu so far)", w->count);
        w->capacity = capacity;
    }
    w->leaves[w->count] = leaf;
    w->lows[w->count++] = leaf->low;
    return 0;
}

/* Lows ascend strictly, so the walk ends whatever the media hold. */
static int walk_leaves(const struct tree *t, struct walk *w)
{
    pa_off off = tree_off_of(t, &t->header->head);
    for (uint64_t low = 0; off != 0;) {
        if (!tree_leaf_is_ours(t, off))
            return error_set(PA_ECORRUPT, "leaf %zu of the tree at %#llx is named as %#llx, which is no leaf of it",
                             w->count, (unsigned long long)t->header_off, (unsigned long long)off);
        struct pm_tree_leaf *leaf = tree_leaf_at(t, off);
        __builtin_prefetch(tree_leaf_at(t, leaf->next));
        if (w->count == 0 ? leaf->low != 0 : leaf->low <= low)
            return error_set(PA_ECORRUPT, "leaf %zu of the tree at %#llx (%#llx) is out of order", w->count,
                             (unsigned long long)t->header_off, (unsigned long long)off);
        low = leaf->low;
        int code = walk_add(w, leaf);
        if (code != 0)
            return code;
        off = leaf->next;
    }
    return 0;
}

/* One change of a leaf was in flight at the most, so more than one bit cannot all be torn. */
static bool may_be_empty(const struct pm_tree_leaf *leaf)
{
    uint64_t bitmap = leaf->bitmap;
    return bitmap == 0 || ((bitmap & (bitmap - 1)) == 0 && leaf->entry[__builtin_ctzll(bitmap)].key == 0);
}

/* A crash came between a removal and what would have followed: no later removal would pass by. */
static void drop_empty_leaves(struct tree *t, const struct walk *w, struct media_tally *tally)
{
    for (size_t i = 1; i < w->count; i++)
        if (may_be_empty(w->leaves[i]))
            tree_drop_empty(t, w->lows[i], tally);
    tree_give_back(t, true);
}

/* Rule LOG: every bit that is set stands for an entry of this leaf. Nobody cleans these leaves, so nobody would notice later. */
static int check_entries(const struct tree *t, const struct pm_tree_leaf *leaf, uint64_t high)
{
    uint64_t newest = t->space.newest_lsn;
    bool right = newest == 0 || leaf->lsn <= newest;
    for (uint64_t used = leaf->bitmap; used != 0; used &= used - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(used);
        uint64_t key = leaf->entry[slot].key;
        right = right && key > leaf->low && key <= high &&
                (uint8_t)(leaf->fingerprint[slot / 8] >> (8 * (slot % 8))) == tree_fingerprint(key);
    }
    if (!right)
        return error_set(PA_ECORRUPT,
                         "the leaf at %#llx of the tree at %#llx is damaged; restore the pool from a backup",
                         (unsigned long long)tree_off_of(t, leaf), (unsigned long long)t->header_off);
    return 0;
}

/* What the leaves say is input: under rule LOG the entries, else the lock words, of which none can be of this generation yet. */
static int check_leaves(struct tree *t, const struct walk *w)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < w->count; i++) {
        if (t->rule == TREE_RULE_LOG)
            code = check_entries(t, w->leaves[i], i + 1 < w->count ? w->lows[i + 1] : UINT64_MAX);
        else if (tree_word_is_current(t, w->leaves[i]->lsn))
            media_store64(t->media, &w->leaves[i]->lsn, 0); /* else it could be locked for ever */
    }
    return code;
}

/* A leaf that a micro-log owns is not in the list: else it would be freed there. */
static int check_spares(const struct tree *t, const struct walk *w)
{
    for (unsigned n = 0; n < TREE_LOGS; n++) {
        pa_pptr owner = t->header->log[n].owner;
        pa_off off = t->space.off_of(t->space.context, owner);
        for (size_t i = 0; !pa_is_null(owner) && i < w->count; i++)
            if (tree_off_of(t, w->leaves[i]) == off)
                return error_set(
                    PA_ECORRUPT,
                    "the tree at %#llx: micro-log %u owns leaf %zu, which is in use; restore the pool from a "
                    "backup",
                    (unsigned long long)t->header_off, n, i);
    }
    return 0;
}

static int rebuild(struct tree *t, struct media_tally *tally)
{
    struct walk w = {0};
    int code = walk_leaves(t, &w);
    if (code == 0)
        code = check_leaves(t, &w);
    if (code == 0)
        code = check_spares(t, &w);
    if (code == 0)
        code = tree_inner_build(t, w.leaves, w.lows, w.count);
    for (unsigned i = 0; code == 0 && i < TREE_LOGS; i++)
        code = tree_log_free_spare(t, i);
    if (code == 0 && t->rule == TREE_RULE_SELF && !t->media->read_only)
        drop_empty_leaves(t, &w, tally);
    free(w.leaves);
    free(w.lows);
    return code;
}

/* After the death of a process alone, its stores are all there, but those of the last moments may be in caches only. What this
 * open finds must be what any later one finds: so everything is written back before it is trusted. */
static int settle(struct tree *t, struct media_tally *tally)
{
    struct walk w = {0};
    if (t->media->mode <= MEDIA_BYTE || t->media->read_only || is_closed(t))
        return 0;
    media_flush(t->media, tally, t->header, offsetof(struct pm_tree_header, head));
    int code = walk_leaves(t, &w);
    for (size_t i = 0; i < w.count; i++)
        media_flush(t->media, tally, w.leaves[i], sizeof *w.leaves[i]);
    /* Before the generation says that the first line is there, and before any of this is acted on. */
    media_drain(t->media, tally);
    free(w.leaves);
    free(w.lows);
    return code;
}

/* --- open and close ----------------------------------------------------------------------------------------------------- */

static int recover(struct tree *t, struct media_tally *tally)
{
    struct pm_tree_header first = constants(t);
    if (is_unformatted(t->header, &first))
        format(t, tally);
    int code = check_header(t);
    if (code == 0)
        code = settle(t, tally);
    if (code != 0)
        return code;
    begin_generation(t);
    for (unsigned i = 0; code == 0 && i < TREE_LOGS; i++)
        code = tree_log_recover(t, i, tally);
    if (code != 0)
        return code;
    if (t->rule == TREE_RULE_SELF)
        tree_leaf_clean(t, &t->header->head, tally); /* a torn entry in the head would look like key 0 */
    return rebuild(t, tally);
}

int tree_open(const struct tree_space *space, pa_off off, enum tree_rule rule, struct tree **ret_tree)
{
    struct media_tally tally = {0};
    struct tree *t = aligned_alloc(64, round_up(sizeof *t, 64));
    if (t == NULL)
        return error_set(PA_ENOMEM, "no memory for a tree's handle");
    *t = (struct tree){.space = *space,
                       .media = space->media,
                       .header = (struct pm_tree_header *)(space->base + off),
                       .header_off = off,
                       .rule = rule};
    lock_init(&t->smo, t->rule == TREE_RULE_LOG ? LOCK_RANK_INDEX : LOCK_RANK_TREE);
    int code = recover(t, &tally);
    tree_count(t, &tally);
    if (code != 0) {
        tree_inner_fini(t);
        lock_fini(&t->smo);
        free(t);
        return code;
    }
    *ret_tree = t;
    return 0;
}

void tree_move(struct tree *t, void *context)
{
    if (t != NULL)
        t->space.context = context;
}

void tree_close(struct tree *t)
{
    if (t == NULL)
        return;
    if (!t->media->read_only) {
        tree_give_back(t, true);
        end_generation(t);
    }
    tree_inner_fini(t);
    lock_fini(&t->smo);
    free(t);
}

void *tree_space_context(const struct tree *t)
{
    return t->space.context;
}

/* --- check -------------------------------------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int check_leaf(const struct tree *t, const struct pm_tree_leaf *leaf, uint64_t high, uint64_t *entries)
{
    uint64_t keys[TREE_LEAF_SLOTS];
    size_t n = 0;
    unsigned long long off = tree_off_of(t, leaf);
    if (tree_word_is_locked(t, leaf->lsn))
        return error_set(PA_ECORRUPT, "leaf %#llx is locked by nobody", off);
    for (unsigned slot = 0; slot < TREE_LEAF_SLOTS; slot++) {
        uint64_t key = leaf->entry[slot].key;
        bool used = (leaf->bitmap >> slot & 1) != 0;
        if (!used && key != 0 && tree_word_is_current(t, leaf->lsn))
            return error_set(PA_ECORRUPT, "leaf %#llx: free slot %u is not empty", off, slot);
        if (!used || !tree_entry_is_whole(t, leaf, slot))
            continue;
        if ((key <= leaf->low && key != 0) || key > high)
            return error_set(PA_ECORRUPT, "leaf %#llx: the key in slot %u is out of the leaf's range", off, slot);
        if ((uint8_t)(leaf->fingerprint[slot / 8] >> (8 * (slot % 8))) != tree_fingerprint(key))
            return error_set(PA_ECORRUPT, "leaf %#llx: slot %u has another key's fingerprint", off, slot);
        keys[n++] = key;
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 1; i < n; i++)
        if (keys[i] == keys[i - 1])
            return error_set(PA_ECORRUPT, "leaf %#llx holds a key twice", off);
    *entries += n;
    return 0;
}

/* Do the inner nodes lead the ends of the leaf's range to it? */
static int check_route(const struct tree *t, const struct pm_tree_leaf *leaf, uint64_t high)
{
    struct tree_place p;
    uint64_t ends[2] = {tree_is_head(t, leaf) ? 0 : leaf->low + 1, high};
    for (unsigned i = 0; i < 2; i++) {
        if (!tree_descend_once(t, ends[i], &p, true) || p.leaf != leaf || p.high != high)
            return error_set(PA_ECORRUPT, "the inner nodes do not lead to leaf %#llx",
                             (unsigned long long)tree_off_of(t, leaf));
    }
    return 0;
}

int tree_check(const struct tree *t, struct tree_counts *ret_counts)
{
    struct walk w = {0};
    struct tree_counts c = {.height = (t->root & TREE_LEVELS_MASK), .inner_nodes = t->node_count};
    int code = walk_leaves(t, &w);
    for (size_t i = 0; code == 0 && i < w.count; i++) {
        uint64_t high = i + 1 < w.count ? w.lows[i + 1] : UINT64_MAX;
        code = check_leaf(t, w.leaves[i], high, &c.entries);
        if (code == 0)
            code = check_route(t, w.leaves[i], high);
    }
    if (code == 0 && w.count != t->leaf_count)
        code = error_set(PA_ECORRUPT, "the tree counts %llu leaves and has %zu", (unsigned long long)t->leaf_count,
                         w.count);
    for (unsigned i = 0; i < TREE_LOGS; i++)
        c.spares += !pa_is_null(t->header->log[i].owner);
    c.leaves = w.count;
    c.dram_bytes = sizeof *t + t->node_count * sizeof(struct tree_node);
    free(w.leaves);
    free(w.lows);
    if (code == 0 && ret_counts != NULL)
        *ret_counts = c;
    return code;
}

int tree_foreach_leaf(const struct tree *t, int (*visit)(pa_off leaf, void *arg), void *arg)
{
    struct walk w = {0};
    int code = walk_leaves(t, &w);
    for (size_t i = 1; code == 0 && i < w.count; i++)
        code = visit(tree_off_of(t, w.leaves[i]), arg);
    free(w.leaves);
    free(w.lows);
    return code;
}

int tree_foreach_block(const struct tree *t, int (*visit)(pa_off block, void *arg), void *arg)
{
    int code = tree_foreach_leaf(t, visit, arg);
    for (unsigned i = 0; code == 0 && i < TREE_LOGS; i++)
        if (!pa_is_null(t->header->log[i].owner))
            code = visit(t->space.off_of(t->space.context, t->header->log[i].owner), arg);
    return code;
}
