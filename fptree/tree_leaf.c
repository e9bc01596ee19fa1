/* SPDX-License-Identifier: BSD-3-Clause */
/* tree_leaf.c -- changes of one leaf. See tree_leaf.h and the comment of struct pm_tree_leaf. */
#include "fptree/tree_leaf.h"

void tree_leaf_fill(const struct media *m, struct pm_tree_leaf *leaf, unsigned slot, uint64_t key, uint64_t value)
{
    /* The value first: if the key has arrived, so has the value, for they share a line. */
    media_store64(m, &leaf->entry[slot].value, value);
    media_store64(m, &leaf->entry[slot].key, key);
}

void tree_leaf_mark(const struct media *m, struct pm_tree_leaf *leaf, unsigned slot, uint64_t key)
{
    unsigned shift = 8 * (slot % 8);
    uint64_t *word = &leaf->fingerprint[slot / 8];
    uint64_t others = tree_load(word) & ~(UINT64_C(0xff) << shift);
    media_store64(m, word, others | (uint64_t)tree_fingerprint(key) << shift);
}

/*
 * Insert into a free slot that durably holds key 0. One fence.
 *
 * step                                        | may be durable after it     | a crash here recovers by
 * --------------------------------------------+-----------------------------+-------------------------------------------
 * 1 value, key; write-back of the entry       | any prefix of the two       | bit clear: the slot is free and is emptied again
 * 2 fingerprint, bit; write-back of the header| any prefix of the two, with | bit set, key 0: torn, the bit is cleared;
 *                                             | any prefix of 1             | bit set, key there: inserted
 * 3 fence                                     | both lines                  | inserted
 *
 * The two lines may arrive in either order, because the key tells by itself whether the entry arrived. Key 0 cannot tell: it
 * takes a fence between 1 and 2.
 */
void tree_leaf_insert(const struct tree *t, struct pm_tree_leaf *leaf, unsigned slot, uint64_t key, uint64_t value,
                      struct media_tally *tally)
{
    const struct media *m = t->media;
    tree_leaf_fill(m, leaf, slot, key, value);
    media_flush(m, tally, &leaf->entry[slot], sizeof leaf->entry[slot]);
    if (__builtin_expect(key == 0, 0))
        media_drain(m, tally); /* else the bit could arrive and the value not */
    tree_leaf_mark(m, leaf, slot, key);
    media_store64(m, &leaf->bitmap, tree_load(&leaf->bitmap) | UINT64_C(1) << slot);
    media_flush(m, tally, leaf, MEDIA_LINE_BYTES);
    media_drain(m, tally); /* before the lock goes: a reader may return the key, and slot is reused only after this */
}

/* Update in place: 8 bytes arrive whole or not at all. One fence. */
void tree_leaf_update(const struct tree *t, struct pm_tree_leaf *leaf, unsigned slot, uint64_t value,
                      struct media_tally *tally)
{
    media_store64(t->media, &leaf->entry[slot].value, value);
    media_flush(t->media, tally, &leaf->entry[slot].value, sizeof value);
    media_drain(t->media, tally); /* before a reader can return the value */
}

/*
 * Remove. One fence. Either line alone removes the entry: the bit by itself, key 0 by making it a torn one. A slot whose
 * bit is gone but whose key is not is emptied when the leaf is next locked after a crash.
 */
void tree_leaf_erase(const struct tree *t, struct pm_tree_leaf *leaf, unsigned slot, struct media_tally *tally)
{
    const struct media *m = t->media;
    media_store64(m, &leaf->bitmap, tree_load(&leaf->bitmap) & ~(UINT64_C(1) << slot));
    media_flush(m, tally, leaf, MEDIA_LINE_BYTES);
    media_store64(m, &leaf->entry[slot].key, 0);
    media_flush(m, tally, &leaf->entry[slot], sizeof leaf->entry[slot]);
    media_drain(m, tally); /* before the slot's next insert, which trusts the key to be 0 */
}

void tree_leaf_clean(const struct tree *t, struct pm_tree_leaf *leaf, struct media_tally *tally)
{
    const struct media *m = t->media;
    uint64_t bitmap = tree_load(&leaf->bitmap), whole = 0;
    bool dirty = false;
    for (unsigned slot = 0; slot < TREE_LEAF_SLOTS; slot++) {
        bool used = (bitmap >> slot & 1) != 0;
        whole |= (uint64_t)(used && tree_entry_is_whole(t, leaf, slot)) << slot;
        if (used || tree_load(&leaf->entry[slot].key) == 0)
            continue;
        media_store64(m, &leaf->entry[slot].key, 0);
        media_flush(m, tally, &leaf->entry[slot], sizeof leaf->entry[slot]);
        dirty = true;
    }
    if (whole != bitmap) {
        media_store64(m, &leaf->bitmap, whole);
        media_flush(m, tally, leaf, MEDIA_LINE_BYTES);
        dirty = true;
    }
    if (dirty)
        media_drain(m, tally); /* before an insert: it trusts free slots to hold key 0, and a cleared bit to stay so */
}

void tree_leaf_format(const struct tree *t, struct pm_tree_leaf *leaf, uint64_t low, pa_off next, uint64_t lsn,
                      const struct pm_tree_entry *entries, unsigned n, struct media_tally *tally)
{
    const struct media *m = t->media;
    uint64_t fingerprint[TREE_FP_WORDS] = {0};
    for (unsigned slot = 0; slot < TREE_LEAF_SLOTS; slot++) {
        /* Word by word: a reader that comes late may still look at the block when it is a spare's. */
        media_store64(m, &leaf->entry[slot].value, slot < n ? entries[slot].value : 0);
        media_store64(m, &leaf->entry[slot].key, slot < n ? entries[slot].key : 0);
        if (slot < n)
            fingerprint[slot / 8] |= (uint64_t)tree_fingerprint(entries[slot].key) << (8 * (slot % 8));
    }
    media_store64(m, &leaf->low, low);
    media_store64(m, &leaf->check, tree_leaf_check(tree_off_of(t, leaf), t->header_off, low));
    for (unsigned i = 0; i < sizeof leaf->reserved / sizeof leaf->reserved[0]; i++)
        media_store64(m, &leaf->reserved[i], 0);
    for (unsigned i = 0; i < TREE_FP_WORDS; i++)
        media_store64(m, &leaf->fingerprint[i], fingerprint[i]);
    media_store64(m, &leaf->next, next);
    media_store64(m, &leaf->lsn, lsn);
    media_store64(m, &leaf->bitmap, n == 0 ? 0 : TREE_LEAF_FULL >> (TREE_LEAF_SLOTS - n));
    media_flush(m, tally, leaf, sizeof *leaf);
}

bool tree_leaf_is_ours(const struct tree *t, pa_off off)
{
    if (off % MEDIA_LINE_BYTES != 0 || off == t->header_off)
        return false;
    const struct pm_tree_leaf *leaf = tree_leaf_at(t, off);
    if (!tree_is_head(t, leaf) && !t->space.is_valid(t->space.context, off, sizeof *leaf))
        return false;
    return leaf->check == tree_leaf_check(off, t->header_off, leaf->low) && (leaf->bitmap & ~TREE_LEAF_FULL) == 0;
}
