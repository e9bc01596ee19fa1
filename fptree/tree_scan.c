/* SPDX-License-Identifier: BSD-3-Clause */
/* tree_scan.c -- ascending visits: each leaf is copied at one instant, sorted, and visited without locks. */
#include "fptree/tree_inner.h"
#include "fptree/tree_rcu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A leaf's entries from one key on, in order. */
struct snapshot {
    uint64_t high; /* of the leaf's range */
    unsigned count;
    struct pm_tree_entry entry[TREE_LEAF_SLOTS];
    struct pm_tree_entry unsorted[TREE_LEAF_SLOTS];
};

static void prefetch_leaf(const struct pm_tree_leaf *leaf)
{
    for (size_t line = 0; line < offsetof(struct pm_tree_leaf, low); line += MEDIA_LINE_BYTES)
        __builtin_prefetch((const char *)leaf + line);
}

/* Copies the whole entries with keys >= from; the caller validates. */
static void copy_entries(const struct tree *t, const struct pm_tree_leaf *leaf, uint64_t from, struct snapshot *s)
{
    s->count = 0;
    for (uint64_t used = tree_load(&leaf->bitmap) & TREE_LEAF_FULL; used != 0; used &= used - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(used);
        uint64_t key = tree_load(&leaf->entry[slot].key);
        s->unsorted[s->count] = (struct pm_tree_entry){key, tree_load(&leaf->entry[slot].value)};
        s->count += key >= from && (key != 0 || (slot == 0 && tree_is_head(t, leaf)));
    }
}

/* ret_rank[i] = number of the n keys that are smaller than key[i]. n is a multiple of 4. */
typedef void (*rank_fn)(const uint64_t *key, unsigned n, uint64_t *ret_rank);

static void rank_plain(const uint64_t *key, unsigned n, uint64_t *ret_rank)
{
    for (unsigned i = 0; i < n; i += 4) { /* four at a time share the loads */
        uint64_t a = key[i], b = key[i + 1], c = key[i + 2], d = key[i + 3];
        unsigned rank[4] = {0};
        for (unsigned j = 0; j < n; j++) {
            rank[0] += key[j] < a;
            rank[1] += key[j] < b;
            rank[2] += key[j] < c;
            rank[3] += key[j] < d;
        }
        for (unsigned k = 0; k < 4; k++)
            ret_rank[i + k] = rank[k];
    }
}

#if defined(__x86_64__)
/* The comparison is signed: flipping the top bit keeps the order. */
__attribute__((target("avx2"))) static void rank_avx2(const uint64_t *key, unsigned n, uint64_t *ret_rank)
{
    const __m256i top = _mm256_set1_epi64x(INT64_MIN);
    for (unsigned i = 0; i < n; i += 4) {
        __m256i mine = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(key + i)), top);
        __m256i rank = _mm256_setzero_si256(), rank2 = rank;
        for (unsigned j = 0; j < n; j += 2) {
            __m256i x = _mm256_xor_si256(_mm256_set1_epi64x((long long)key[j]), top);
            __m256i y = _mm256_xor_si256(_mm256_set1_epi64x((long long)key[j + 1]), top);
            rank = _mm256_sub_epi64(rank, _mm256_cmpgt_epi64(mine, x));
            rank2 = _mm256_sub_epi64(rank2, _mm256_cmpgt_epi64(mine, y));
        }
        _mm256_storeu_si256((__m256i *)(ret_rank + i), _mm256_add_epi64(rank, rank2));
    }
}
#endif

static rank_fn choose_rank(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return rank_avx2;
#endif
    return rank_plain;
}

/* Each entry goes to the place that the number of smaller keys tells: no branch depends on the keys. */
static void sort_snapshot(struct snapshot *s, rank_fn rank)
{
    uint64_t key[TREE_LEAF_SLOTS], place[TREE_LEAF_SLOTS];
    unsigned n = (s->count + 3) / 4 * 4;
    for (unsigned i = 0; i < n; i++)
        key[i] = i < s->count ? s->unsorted[i].key : UINT64_MAX;
    rank(key, n, place);
    for (unsigned i = 0; i < s->count; i++)
        s->entry[place[i]] = s->unsorted[i];
}

static void take_snapshot(const struct tree *t, uint64_t from, struct snapshot *s)
{
    struct tree_place p;
    unsigned round = 0;
    tree_read_lock();
    for (;;) {
        tree_descend(t, from, &p, true);
        prefetch_leaf(p.leaf);
        copy_entries(t, p.leaf, from, s);
        if (tree_leaf_is_unchanged(p.leaf, p.word))
            break;
        tree_pause(&round);
    }
    s->high = p.high;
    if (p.next != NULL)
        prefetch_leaf(p.next); /* if the scan goes on, it goes there */
    tree_read_unlock();
}

int tree_scan(const struct tree *t, uint64_t from, tree_visit_fn visit, void *arg)
{
    struct snapshot s = {0};
    const rank_fn rank = choose_rank();
    for (;;) {
        take_snapshot(t, from, &s);
        sort_snapshot(&s, rank);
        for (unsigned i = 0; i < s.count; i++) {
            int stop = visit(s.entry[i].key, s.entry[i].value, arg);
            if (stop != 0)
                return stop;
        }
        if (s.high == UINT64_MAX)
            return 0;
        from = s.high + 1;
    }
}
