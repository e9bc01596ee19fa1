/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree_leaf.h -- one leaf: looking up, locking, changing.
 *
 * Lock word (rule SELF): generation << 32 | version << 1 | locked. A word of another generation is unlocked, whatever its low
 * half says, so nothing needs clearing after a crash. Readers take no lock: they read the word, the leaf, and the word again.
 * A writer keeps the lock until its change is durable, so no reader ever returns what a crash could take back.
 * Every word of a leaf that readers can see is loaded and stored atomically.
 */
#ifndef FPTREE_TREE_LEAF_H
#define FPTREE_TREE_LEAF_H

#include "fptree/tree_private.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

static inline uint64_t tree_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/** Loads before this are done before loads after it. */
static inline void tree_load_fence(void)
{
#if defined(__x86_64__)
    __atomic_signal_fence(
        __ATOMIC_SEQ_CST); /* loads are not reordered; the race detector sees only atomic loads here */
#else
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
}

/* ------------------------------------------------------------------------------------------------ looking up */

/** Slots whose fingerprint is fp, used or not. */
static inline uint64_t tree_leaf_match(const struct pm_tree_leaf *leaf, uint8_t fp)
{
    uint64_t w[TREE_FP_WORDS];
    for (unsigned i = 0; i < TREE_FP_WORDS; i++)
        w[i] = tree_load(&leaf->fingerprint[i]);
#if defined(__SSE2__)
    __m128i want = _mm_set1_epi8((char)fp);
    __m128i a = _mm_set_epi64x((long long)w[1], (long long)w[0]);
    __m128i b = _mm_set_epi64x((long long)w[3], (long long)w[2]);
    __m128i c = _mm_cvtsi64_si128((long long)w[4]);
    uint64_t low = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(a, want));
    uint64_t middle = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(b, want));
    uint64_t high = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(c, want)) & 0xff;
    return low | middle << 16 | high << 32;
#elif defined(__ARM_NEON)
    static const uint8_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    uint64_t found = 0;
    for (unsigned i = 0; i < TREE_FP_WORDS; i++) {
        uint8x8_t equal = vceq_u8(vcreate_u8(w[i]), vdup_n_u8(fp));
        found |= (uint64_t)vaddv_u8(vand_u8(equal, vld1_u8(bit))) << (8 * i);
    }
    return found;
#else
    uint64_t found = 0;
    for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++)
        found |= (uint64_t)((uint8_t)(w[s / 8] >> (8 * (s % 8))) == fp) << s;
    return found;
#endif
}

/** Slot of key, or TREE_NO_SLOT. Torn entries are not found: they hold key 0, which only the head's slot 0 may. */
static inline unsigned tree_leaf_find(const struct pm_tree_leaf *leaf, uint64_t key)
{
    uint64_t mask = tree_leaf_match(leaf, tree_fingerprint(key)) & tree_load(&leaf->bitmap);
    for (; mask != 0; mask &= mask - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(mask);
        if (__builtin_expect(tree_load(&leaf->entry[slot].key) == key, 1))
            return slot;
    }
    return TREE_NO_SLOT;
}

/** Is the entry in a used slot one, or did only its bit arrive? */
static inline bool tree_entry_is_whole(const struct tree *t, const struct pm_tree_leaf *leaf, unsigned slot)
{
    return tree_load(&leaf->entry[slot].key) != 0 || (slot == 0 && tree_is_head(t, leaf));
}

/** Free slots that may take key. */
static inline uint64_t tree_leaf_free(const struct tree *t, const struct pm_tree_leaf *leaf, uint64_t key)
{
    uint64_t slots = ~tree_load(&leaf->bitmap) & TREE_LEAF_FULL;
    if (__builtin_expect(tree_is_head(t, leaf), 0))
        slots &= key == 0 ? UINT64_C(1) : ~UINT64_C(1);
    return slots;
}

static inline unsigned tree_leaf_used(const struct pm_tree_leaf *leaf)
{
    return (unsigned)__builtin_popcountll(tree_load(&leaf->bitmap) & TREE_LEAF_FULL);
}

/* ------------------------------------------------------------------------------------------------ locking */

static inline bool tree_word_is_current(const struct tree *t, uint64_t word)
{
    return word >> 32 == t->generation;
}

static inline bool tree_word_is_locked(const struct tree *t, uint64_t word)
{
    return (word & 1) != 0 && tree_word_is_current(t, word);
}

static inline uint64_t tree_leaf_word(const struct pm_tree_leaf *leaf)
{
    return __atomic_load_n(&leaf->lsn, __ATOMIC_ACQUIRE);
}

/** True if the leaf has not changed since its word was read as `word`. */
static inline bool tree_leaf_is_unchanged(const struct pm_tree_leaf *leaf, uint64_t word)
{
    tree_load_fence();
    return tree_load(&leaf->lsn) == word;
}

/** Try to lock a leaf whose unlocked word was read as `word`. */
static inline bool tree_leaf_lock(const struct tree *t, struct pm_tree_leaf *leaf, uint64_t word)
{
    uint64_t locked = (tree_word_is_current(t, word) ? word : t->generation << 32) | 1;
    if (!__atomic_compare_exchange_n(&leaf->lsn, &word, locked, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    /* The word is on media but means nothing after a crash; stored again only so that a recorder sees what may be found there. */
    if (__builtin_expect(t->media->mode == MEDIA_RECORD, 0))
        media_store64(t->media, &leaf->lsn, locked);
    return true;
}

/** Unlock. changed: readers must start over. */
static inline void tree_leaf_unlock(const struct tree *t, struct pm_tree_leaf *leaf, bool changed)
{
    uint64_t word = tree_load(&leaf->lsn);
    uint64_t version = (uint32_t)word >> 1;
    if (changed)
        version = (version + 1) & 0x7fffffff;
    media_store64(t->media, &leaf->lsn, t->generation << 32 | version << 1);
}

/* ------------------------------------------------------------------------------------------------ changing (tree_leaf.c) */

/** Make the leaf, just locked for the first time in this open, fit for inserts: no torn entry, key 0 in free slots. */
void tree_leaf_clean(const struct tree *t, struct pm_tree_leaf *leaf, struct media_tally *tally);
/** Store an entry in a free slot (value, then key); not written back. */
void tree_leaf_fill(const struct media *m, struct pm_tree_leaf *leaf, unsigned slot, uint64_t key, uint64_t value);
/** Store a slot's fingerprint; its word is written as a whole. */
void tree_leaf_mark(const struct media *m, struct pm_tree_leaf *leaf, unsigned slot, uint64_t key);
/** The three changes of one leaf that are durable when they return (rule SELF, locked and clean). */
void tree_leaf_insert(const struct tree *t, struct pm_tree_leaf *leaf, unsigned slot, uint64_t key, uint64_t value,
                      struct media_tally *tally);
void tree_leaf_update(const struct tree *t, struct pm_tree_leaf *leaf, unsigned slot, uint64_t value,
                      struct media_tally *tally);
void tree_leaf_erase(const struct tree *t, struct pm_tree_leaf *leaf, unsigned slot, struct media_tally *tally);
/** Write a whole leaf that is in no list: n entries in slots 0 .. n - 1, all else free. lsn: the lock word or LSN it starts
 *  with. The write-back of all its lines is started. */
void tree_leaf_format(const struct tree *t, struct pm_tree_leaf *leaf, uint64_t low, pa_off next, uint64_t lsn,
                      const struct pm_tree_entry *entries, unsigned n, struct media_tally *tally);
/** Is it a leaf of this tree? Reads media as input: off itself must be valid. */
bool tree_leaf_is_ours(const struct tree *t, pa_off off);

#endif
