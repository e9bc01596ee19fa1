/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fptree.c -- the tree against plain arrays: first alone, on a space in ordinary memory, then on pools.
 */
#include <stdlib.h>
#include <string.h>

#include "fptree/tree_leaf.h"
#include "pool/pool_fptree.h"
#include "tests/fptree/fake_space.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

/* --- helpers ------------------------------------------------------------------------------------------------------------ */

static struct tree *open_tree(struct fake *f)
{
    struct tree *t = NULL;
    CK_OK(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t));
    return t;
}

static struct tree_counts checked(const struct fake *f, const struct tree *t)
{
    struct tree_counts c;
    CK_OK(tree_check(t, &c));
    const char *leak = fake_leaks(f, t);
    EXPECT(leak == NULL, "%s", leak);
    return c;
}

static struct tree *reopened(struct fake *f, struct tree *t)
{
    tree_close(t);
    return open_tree(f);
}

static void shuffle(uint64_t *keys, size_t n, struct random *r)
{
    for (size_t i = n; i-- > 1;) {
        size_t j = random_below(r, i + 1);
        uint64_t x = keys[i];
        keys[i] = keys[j];
        keys[j] = x;
    }
}

enum order { ASCENDING, DESCENDING, RANDOM, ORDERS };

/* n distinct keys, 0 and UINT64_MAX among them; dense = neighbours. */
static uint64_t *make_keys(size_t n, enum order order, bool dense, struct random *r)
{
    uint64_t *keys = malloc(n * sizeof *keys);
    uint64_t step = dense ? 1 : UINT64_MAX / (n - 1);
    for (size_t i = 0; i < n; i++)
        keys[i] = i * step;
    keys[n - 1] = UINT64_MAX;
    if (order == DESCENDING)
        for (size_t i = 0; i < n / 2; i++) {
            uint64_t x = keys[i];
            keys[i] = keys[n - 1 - i];
            keys[n - 1 - i] = x;
        }
    if (order == RANDOM)
        shuffle(keys, n, r);
    return keys;
}

static uint64_t value_of(uint64_t key)
{
    return key * 31 + 7;
}

static void expect_value(const struct tree *t, uint64_t key, uint64_t value)
{
    uint64_t found = 0;
    int code = tree_find(t, key, &found);
    EXPECT(code == 0 && found == value, "key %llu: %s, value %llu instead of %llu", (unsigned long long)key,
           pa_strerror(code), (unsigned long long)found, (unsigned long long)value);
}

static void expect_absent(const struct tree *t, uint64_t key)
{
    uint64_t found = 99;
    int code = tree_find(t, key, &found);
    EXPECT(code == PA_ENOENT && found == 99, "key %llu is there", (unsigned long long)key);
}

/* --- leaves ------------------------------------------------------------------------------------------------------------- */

START_TEST(leaf__match_agrees_with_the_bytes)
{
    struct pm_tree_leaf leaf;
    struct random r = {run_seed()};
    for (unsigned round = 0; round < 2000; round++) {
        for (unsigned i = 0; i < TREE_FP_WORDS; i++)
            leaf.fingerprint[i] = random_next(&r) & (round % 2 ? UINT64_MAX : 0x0303030303030303);
        uint8_t fp = (uint8_t)(random_next(&r) & (round % 2 ? 0xff : 3));
        uint64_t expected = 0;
        for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++)
            expected |= (uint64_t)(((const uint8_t *)leaf.fingerprint)[s] == fp) << s;
        EXPECT(tree_leaf_match(&leaf, fp) == expected, "round %u", round);
    }
}
END_TEST

/* --- keys in, keys out -------------------------------------------------------------------------------------------------- */

START_TEST(tree__is_empty_when_new)
{
    struct fake *f = fake_new(4);
    struct tree *t = open_tree(f);
    expect_absent(t, 0);
    expect_absent(t, 1);
    expect_absent(t, UINT64_MAX);
    CK_FAILS(tree_remove(t, 5), PA_ENOENT, "no such key");
    ck_assert_uint_eq(checked(f, t).leaves, 1);
    ck_assert_uint_eq(f->allocations, 0);
    t = reopened(f, t);
    expect_absent(t, 1);
    tree_close(t);
    fake_delete(f);
}
END_TEST

START_TEST(tree__refuses_a_key_twice_and_replaces_on_demand)
{
    struct fake *f = fake_new(4);
    struct tree *t = open_tree(f);
    static const uint64_t keys[] = {0, 1, UINT64_MAX};
    for (size_t i = 0; i < 3; i++) {
        CK_OK(tree_insert(t, keys[i], 1));
        CK_FAILS(tree_insert(t, keys[i], 2), PA_EEXIST, "already");
        expect_value(t, keys[i], 1);
        CK_OK(tree_upsert(t, keys[i], 3));
        expect_value(t, keys[i], 3);
        CK_OK(tree_remove(t, keys[i]));
        expect_absent(t, keys[i]);
        CK_OK(tree_upsert(t, keys[i], 4));
        expect_value(t, keys[i], 4);
    }
    ck_assert_uint_eq(checked(f, t).entries, 3);
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* Every order of insertion with every order of removal, down to the empty tree, which has given its leaves back. */
START_TEST(tree__gives_everything_back_in_any_order)
{
    enum { N = 9000 };
    struct random r = {run_seed()};
    for (int in = 0; in < ORDERS; in++) {
        for (int out = 0; out < ORDERS; out++) {
            struct fake *f = fake_new(2000);
            struct tree *t = open_tree(f);
            uint64_t *keys = make_keys(N, in, in + out == 2, &r);
            for (size_t i = 0; i < N; i++)
                CK_OK(tree_insert(t, keys[i], value_of(keys[i])));
            ck_assert_uint_eq(checked(f, t).entries, N);
            free(keys);
            keys = make_keys(N, out, in + out == 2, &r);
            for (size_t i = 0; i < N; i++)
                expect_value(t, keys[i], value_of(keys[i]));
            for (size_t i = 0; i < N; i++) {
                CK_OK(tree_remove(t, keys[i]));
                expect_absent(t, keys[i]);
                if (i % 1000 == 0)
                    ck_assert_uint_eq(checked(f, t).entries, N - 1 - i);
            }
            struct tree_counts c = checked(f, t);
            ck_assert_uint_eq(c.entries, 0);
            ck_assert_uint_eq(c.leaves, 1);
            ck_assert_uint_eq(f->allocated, 0);
            free(keys);
            tree_close(t);
            fake_delete(f);
        }
    }
}
END_TEST

START_TEST(tree__fills_leaves_with_ascending_keys)
{
    enum { N = 40000 };
    struct fake *f = fake_new(2000);
    struct tree *t = open_tree(f);
    for (uint64_t key = 1; key <= N; key++)
        CK_OK(tree_insert(t, key, key));
    ck_assert_uint_le(checked(f, t).leaves, N / 40 + 2);
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* Random operations against an array, with reopens, growing and shrinking. */
START_TEST(tree__agrees_with_an_array)
{
    enum { KEYS = 3000, STEPS = 200000 };
    struct fake *f = fake_new(600);
    struct tree *t = open_tree(f);
    struct random r = {run_seed()};
    static uint64_t values[KEYS]; /* 0 = not there */
    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t key = random_below(&r, KEYS), value = random_next(&r) | 1;
        bool grow = step / 20000 % 2 == 0, there = values[key] != 0;
        unsigned what = (unsigned)random_below(&r, 8);
        if (what < (grow ? 4 : 1)) {
            ck_assert_int_eq(tree_insert(t, key * 7, value), there ? PA_EEXIST : 0);
            values[key] = there ? values[key] : value;
        } else if (what == 4) {
            CK_OK(tree_upsert(t, key * 7, value));
            values[key] = value;
        } else if (what >= (grow ? 7 : 5)) {
            EXPECT(tree_remove(t, key * 7) == (there ? 0 : PA_ENOENT), "removal of %llu", (unsigned long long)key);
            values[key] = 0;
        } else if (there) {
            expect_value(t, key * 7, values[key]);
        } else {
            expect_absent(t, key * 7);
        }
        expect_absent(t, key * 7 + 3);
        if (step % 10007 == 0) {
            checked(f, t);
            t = reopened(f, t);
        }
    }
    struct tree_counts c = checked(f, t);
    size_t expected = 0;
    for (size_t i = 0; i < KEYS; i++)
        expected += values[i] != 0;
    ck_assert_uint_eq(c.entries, expected);
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* --- scans -------------------------------------------------------------------------------------------------------------- */

struct scan {
    uint64_t next, step, stop_at;
    size_t count;
};

static int see(uint64_t key, uint64_t value, void *arg)
{
    struct scan *s = arg;
    EXPECT(key == s->next && value == value_of(key), "key %llu instead of %llu", (unsigned long long)key,
           (unsigned long long)s->next);
    s->next += s->step;
    s->count++;
    return key == s->stop_at ? 42 : 0;
}

START_TEST(tree__scan_visits_in_order_from_any_key)
{
    enum { N = 5000, STEP = 3 };
    struct fake *f = fake_new(600);
    struct tree *t = open_tree(f);
    struct random r = {run_seed()};
    struct scan empty = {0};
    CK_OK(tree_scan(t, 0, see, &empty));
    ck_assert_uint_eq(empty.count, 0);
    uint64_t keys[N];
    for (size_t i = 0; i < N; i++)
        keys[i] = i * STEP;
    shuffle(keys, N, &r);
    for (size_t i = 0; i < N; i++)
        CK_OK(tree_insert(t, keys[i], value_of(keys[i])));
    for (uint64_t from = 0; from < N * STEP + 2; from += 1 + random_below(&r, 40)) {
        uint64_t first = (from + STEP - 1) / STEP * STEP;
        struct scan s = {first, STEP, first + 100 * STEP, 0};
        bool stops = s.stop_at < (uint64_t)N * STEP;
        ck_assert_int_eq(tree_scan(t, from, see, &s), stops ? 42 : 0);
        ck_assert_uint_eq(s.count, stops ? 101 : first >= N * STEP ? 0 : N - first / STEP);
    }
    CK_OK(tree_insert(t, UINT64_MAX, value_of(UINT64_MAX)));
    struct scan last = {UINT64_MAX, 0, 0, 0};
    CK_OK(tree_scan(t, UINT64_MAX, see, &last));
    ck_assert_uint_eq(last.count, 1);
    tree_close(t);
    fake_delete(f);
}
END_TEST

static int remove_it(uint64_t key, uint64_t value, void *arg)
{
    (void)value;
    CK_OK(tree_remove(arg, key));
    return 0;
}

START_TEST(tree__scan_may_change_the_tree)
{
    struct fake *f = fake_new(600);
    struct tree *t = open_tree(f);
    for (uint64_t key = 0; key < 3000; key++)
        CK_OK(tree_insert(t, key, value_of(key)));
    CK_OK(tree_scan(t, 0, remove_it, t));
    ck_assert_uint_eq(checked(f, t).entries, 0);
    ck_assert_uint_eq(f->allocated, 0);
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* --- cost --------------------------------------------------------------------------------------------------------------- */

static uint64_t fences_of(struct fake *f, struct tree *t, int what, uint64_t key)
{
    uint64_t before = f->tally.fences, value;
    if (what == 0)
        CK_OK(tree_insert(t, key, 1));
    if (what == 1)
        CK_OK(tree_upsert(t, key, 2));
    if (what == 2)
        CK_OK(tree_find(t, key, &value));
    if (what == 3)
        CK_OK(tree_remove(t, key));
    return f->tally.fences - before;
}

START_TEST(tree__needs_one_fence_per_change)
{
    struct fake *f = fake_new(16);
    struct tree *t = open_tree(f);
    for (uint64_t key = 1; key < 40; key++)
        ck_assert_uint_eq(fences_of(f, t, 0, key), 1);
    ck_assert_uint_eq(fences_of(f, t, 0, 0), 2); /* key 0 alone takes two */
    for (uint64_t key = 0; key < 40; key++)
        ck_assert_uint_eq(fences_of(f, t, 1, key), 1);
    for (uint64_t key = 0; key < 40; key++)
        ck_assert_uint_eq(fences_of(f, t, 2, key), 0);
    ck_assert_uint_le(fences_of(f, t, 0, 100), 4); /* with a split: the allocation's come on top */
    for (uint64_t key = 0; key < 40; key++)
        ck_assert_uint_le(fences_of(f, t, 3, key), 4);
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* --- no space ----------------------------------------------------------------------------------------------------------- */

START_TEST(tree__without_space_stays_as_it_was)
{
    struct fake *f = fake_new(3);
    struct tree *t = open_tree(f);
    struct random r = {run_seed()};
    uint64_t keys[500];
    size_t n = 0;
    while (n < 500) {
        keys[n] = random_next(&r) | 1;
        int code = tree_insert(t, keys[n], n);
        if (code != 0) {
            ck_assert_int_eq(code, PA_ENOSPC);
            expect_absent(t, keys[n]);
            break;
        }
        n++;
    }
    ck_assert_uint_ge(n, 80);
    ck_assert_uint_lt(n, 170);
    ck_assert_uint_eq(checked(f, t).entries, n);
    for (size_t i = 0; i < n; i++)
        expect_value(t, keys[i], i);
    for (size_t i = 0; i < n; i++)
        CK_OK(tree_upsert(t, keys[i], i + 1)); /* a change of value needs no space */
    for (size_t i = 0; i < n; i++)
        CK_OK(tree_remove(t, keys[i])); /* nor does a removal */
    ck_assert_uint_eq(f->allocated, 0);
    CK_OK(tree_insert(t, 1, 1));
    tree_close(t);
    fake_delete(f);
}
END_TEST

START_TEST(tree__read_only_finds_and_refuses_changes)
{
    struct fake *f = fake_new(30);
    struct tree *t = open_tree(f);
    for (uint64_t key = 0; key < 500; key++)
        CK_OK(tree_insert(t, key, value_of(key)));
    f->media.read_only = true;
    t = reopened(f, t);
    for (uint64_t key = 0; key < 500; key++)
        expect_value(t, key, value_of(key));
    CK_FAILS(tree_insert(t, 1000, 0), PA_EACCES, "read-only");
    CK_FAILS(tree_upsert(t, 1, 0), PA_EACCES, "read-only");
    CK_FAILS(tree_remove(t, 1), PA_EACCES, "read-only");
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* --- damaged media ------------------------------------------------------------------------------------------------------ */

static struct pm_tree_header *header_of(struct fake *f)
{
    return (struct pm_tree_header *)(f->arena + FAKE_HEADER);
}

START_TEST(tree__names_the_damage)
{
    struct fake *f = fake_new(64);
    struct tree *t = open_tree(f);
    for (uint64_t key = 0; key < 1000; key++)
        CK_OK(tree_insert(t, key, key));
    tree_close(t);
    char *copy = malloc(f->bytes);
    memcpy(copy, f->arena, f->bytes);
    struct pm_tree_header *h = header_of(f);

    h->magic ^= 4;
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_ECORRUPT, "magic");
    memcpy(f->arena, copy, f->bytes);
    h->magic = 0; /* looks unfinished, but the tree has been open */
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_ECORRUPT, "magic");
    memcpy(f->arena, copy, f->bytes);
    h->version++;
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_ECORRUPT, "checksum");
    h->checksum = tree_header_checksum(h);
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_EVERSION, "format 2");
    memcpy(f->arena, copy, f->bytes);
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_LOG, &t), PA_ECORRUPT, "another");
    h->head.next += 8;
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_ECORRUPT, "no leaf of it");
    memcpy(f->arena, copy, f->bytes);
    struct pm_tree_leaf *second = (struct pm_tree_leaf *)(f->arena + h->head.next);
    second->next = h->head.next; /* a cycle */
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_ECORRUPT, "out of order");
    second->next = FAKE_HEADER + offsetof(struct pm_tree_header, head);
    CK_FAILS(tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t), PA_ECORRUPT, "out of order");
    free(copy);
    fake_delete(f);
}
END_TEST

static int count_down(uint64_t key, uint64_t value, void *arg)
{
    (void)key, (void)value;
    return --*(unsigned *)arg == 0;
}

/* Uses a damaged tree in every way: any result will do, but no crash and no endless loop. */
static void exercise(struct tree *t, struct random *r)
{
    uint64_t value;
    unsigned visits = 5000;
    tree_scan(t, 0, count_down, &visits);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t key = random_below(r, 1200);
        tree_find(t, key, &value);
        tree_upsert(t, key, 1);
        tree_remove(t, random_below(r, 1200));
    }
}

START_TEST(tree__survives_any_damaged_word)
{
    struct fake *f = fake_new(64);
    struct tree *t = open_tree(f);
    struct random r = {run_seed()};
    uint64_t keys[1000];
    for (uint64_t i = 0; i < 1000; i++)
        keys[i] = i;
    shuffle(keys, 1000, &r);
    for (uint64_t i = 0; i < 1000; i++)
        CK_OK(tree_insert(t, keys[i], i));
    tree_close(t);
    char *copy = malloc(f->bytes);
    uint8_t used[64];
    memcpy(copy, f->arena, f->bytes);
    memcpy(used, f->used, sizeof used);
    uint32_t allocated = f->allocated;
    for (size_t at = FAKE_HEADER; at + 8 <= f->bytes; at += 8) {
        uint64_t *word = (uint64_t *)(f->arena + at);
        static const uint64_t flips[] = {1, UINT64_C(1) << 39, UINT64_MAX, 768, UINT64_C(1) << 63};
        *word ^= flips[random_below(&r, 5)];
        if (random_below(&r, 4) == 0)
            *word = FAKE_HEADER + 4096 + 768 * random_below(&r, 40);
        t = NULL;
        int code = tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t);
        if (code == 0) {
            exercise(t, &r);
            tree_close(t);
        } else {
            EXPECT(code == PA_ECORRUPT || code == PA_EVERSION, "word %zu: %s", at, pa_strerror(code));
        }
        memcpy(f->arena, copy, f->bytes);
        memcpy(f->used, used, sizeof used);
        f->allocated = allocated;
    }
    free(copy);
    fake_delete(f);
}
END_TEST

/* --- rule LOG ----------------------------------------------------------------------------------------------------------- */

/* A block index over a caller's log, as an allocator keeps one: groups of changes, redone at once or after a crash. */
START_TEST(tree__under_a_log_redoes_groups)
{
    enum { KEYS = 600 };
    struct fake *f = fake_new(200);
    struct tree *t;
    struct random r = {run_seed()};
    uint64_t values[KEYS] = {0}, lsn = 0;
    struct media_tally tally = {0};
    CK_OK(tree_open(&f->space, FAKE_HEADER, TREE_RULE_LOG, &t));
    for (unsigned step = 0; step < 20000; step++) {
        struct tree_change c[2];
        bool out[2];
        bool grow = step / 4000 % 2 == 0;
        uint64_t first = random_below(&r, KEYS);
        for (unsigned i = 0; i < 2; i++) {
            uint64_t k = (first + i * (1 + random_below(&r, 40))) % KEYS;
            if (i == 1 && k == first)
                k = (k + 1) % KEYS;
            out[i] = values[k] != 0 && random_below(&r, 8) < (grow ? 2 : 5);
            if (!grow && values[k] == 0)
                out[i] = true;
            c[i] = (struct tree_change){.key = k + 1, .value = random_next(&r) | 1};
        }
        int code = tree_prepare(t, c, out, 2, lsn, &tally);
        bool absent = (out[0] && values[c[0].key - 1] == 0) || (out[1] && values[c[1].key - 1] == 0);
        ck_assert_int_eq(code, absent ? PA_ENOENT : 0);
        if (absent)
            continue;
        lsn++;
        struct tree_change logged[2] = {c[0], c[1]};
        tree_redo(&f->media, f->arena, c, 2, lsn);
        tree_redo(&f->media, f->arena, logged, 2, lsn); /* once more changes nothing */
        for (unsigned i = 0; i < 2; i++)
            values[c[i].key - 1] = out[i] ? 0 : c[i].value;
        for (unsigned i = 0; i < 2; i++)
            if (out[i])
                tree_trim(t, c[i].key, lsn);
        if (step % 997 == 0) {
            checked(f, t);
            for (unsigned k = 0; k < KEYS; k++)
                if (values[k] != 0)
                    expect_value(t, k + 1, values[k]);
                else
                    expect_absent(t, k + 1);
            tree_close(t);
            CK_OK(tree_open(&f->space, FAKE_HEADER, TREE_RULE_LOG, &t));
        }
    }
    tree_close(t);
    fake_delete(f);
}
END_TEST

/* --- on a pool ---------------------------------------------------------------------------------------------------------- */

/* A pool whose root holds four anchors. */
struct plot {
    struct temp_path dir;
    pa_pool *pool;
    pa_pptr *anchors;
    fptree *tree; /* at anchors[0] */
};

static void plot_open_trees(struct plot *p)
{
    pa_pptr root;
    CK_OK(pa_root(p->pool, 4 * sizeof(pa_pptr), &root));
    p->anchors = pa_direct(p->pool, root);
    CK_OK(fptree_open(p->pool, &p->anchors[0], &p->tree));
}

static struct plot plot_new(void)
{
    struct plot p = {.dir = temp_new()};
    p.pool = pool_make(p.dir.text);
    plot_open_trees(&p);
    return p;
}

static void plot_reopen(struct plot *p)
{
    CK_OK(fptree_close(p->tree));
    pool_finish(p->pool, p->dir.text);
    p->pool = pool_reopen(p->dir.text);
    plot_open_trees(p);
}

static uint64_t plot_blocks(struct plot *p)
{
    pa_stats stats;
    CK_OK(pa_get_stats(p->pool, &stats));
    return stats.allocated_blocks;
}

START_TEST(fptree__keeps_keys_over_reopens_and_gives_blocks_back)
{
    enum { N = 30000 };
    struct plot p = plot_new();
    struct random r = {run_seed()};
    uint64_t *keys = make_keys(N, RANDOM, false, &r), value, empty = plot_blocks(&p);
    for (size_t i = 0; i < N; i++)
        CK_OK(fptree_insert(p.tree, keys[i], i));
    plot_reopen(&p);
    CK_OK(fptree_check(p.tree, NULL));
    for (size_t i = 0; i < N; i++)
        EXPECT(fptree_find(p.tree, keys[i], &value) == 0 && value == i, "key %zu", i);
    shuffle(keys, N, &r);
    for (size_t i = 0; i < N; i++) {
        CK_OK(fptree_remove(p.tree, keys[i]));
        if (i == N / 2)
            plot_reopen(&p);
    }
    ck_assert_uint_eq(plot_blocks(&p), empty);
    plot_reopen(&p);
    CK_FAILS(fptree_find(p.tree, keys[0], &value), PA_ENOENT, "no such key");
    free(keys);
    CK_OK(fptree_close(p.tree));
    pool_finish(p.pool, p.dir.text);
}
END_TEST

START_TEST(fptree__trees_share_a_pool)
{
    struct plot p = plot_new();
    fptree *other;
    uint64_t value;
    CK_OK(fptree_open(p.pool, &p.anchors[3], &other));
    for (uint64_t key = 0; key < 5000; key++) {
        CK_OK(fptree_insert(p.tree, key, 1));
        CK_OK(fptree_insert(other, key, 2));
    }
    for (uint64_t key = 0; key < 5000; key++) {
        CK_OK(fptree_remove(p.tree, key));
        CK_OK(fptree_find(other, key, &value));
        ck_assert_uint_eq(value, 2);
    }
    CK_OK(fptree_close(other));
    CK_OK(fptree_close(p.tree));
    pool_finish(p.pool, p.dir.text);
}
END_TEST

/* A freed tree's block, with everything in it, is likely the next tree's. */
START_TEST(fptree__a_new_tree_is_empty_whatever_its_block_held)
{
    struct plot p = plot_new();
    uint64_t value;
    for (unsigned round = 0; round < 5; round++) {
        for (uint64_t key = 0; key < 30; key++)
            CK_OK(fptree_insert(p.tree, key, key));
        CK_OK(fptree_close(p.tree));
        CK_OK(pa_deallocate(p.pool, &p.anchors[0]));
        CK_OK(fptree_open(p.pool, &p.anchors[0], &p.tree));
        for (uint64_t key = 0; key < 30; key++)
            ck_assert_int_eq(fptree_find(p.tree, key, &value), PA_ENOENT);
    }
    CK_OK(fptree_close(p.tree));
    pool_finish(p.pool, p.dir.text);
}
END_TEST

START_TEST(fptree__refuses_anchors_that_are_none)
{
    struct plot p = plot_new();
    static pa_pptr outside;
    fptree *t = NULL;
    CK_FAILS(fptree_open(p.pool, NULL, &t), PA_EINVAL, "anchor");
    CK_FAILS(fptree_open(p.pool, &outside, &t), PA_EINVAL, "anchor");
    CK_FAILS(fptree_open(p.pool, (pa_pptr *)((char *)&p.anchors[1] + 8), &t), PA_EINVAL, "aligned");
    CK_OK(pa_allocate(p.pool, &p.anchors[1], 4096));
    memset(pa_direct(p.pool, p.anchors[1]), 7, 4096);
    CK_FAILS(fptree_open(p.pool, &p.anchors[1], &t), PA_ECORRUPT, "no tree");
    CK_OK(pa_allocate(p.pool, &p.anchors[2], 64));
    CK_FAILS(fptree_open(p.pool, &p.anchors[2], &t), PA_ECORRUPT, "no block with a tree");
    memcpy(pa_direct(p.pool, p.anchors[1]), pa_direct(p.pool, p.anchors[0]), TREE_HEADER_BYTES);
    CK_FAILS(fptree_open(p.pool, &p.anchors[1], &t), PA_ECORRUPT, "another place");
    p.anchors[3] = (pa_pptr){1u << 30, 64};
    CK_FAILS(fptree_open(p.pool, &p.anchors[3], &t), PA_ECORRUPT, "no block with a tree");
    p.anchors[3] = PA_NULL;
    ck_assert_ptr_null(t);
    CK_OK(fptree_close(NULL));
    CK_OK(fptree_close(p.tree));
    pool_finish(p.pool, p.dir.text);
}
END_TEST

START_TEST(fptree__in_a_full_pool_removes_and_recovers_its_strength)
{
    struct temp_path dir = temp_new();
    struct plot p = {.dir = dir};
    pa_options o;
    pa_options_init(&o);
    o.segment_size = 1 << 20;
    o.max_size = 4 << 20;
    CK_OK(pa_create(dir.text, &o, &p.pool));
    plot_open_trees(&p);
    uint64_t n = 0, value;
    int code;
    while ((code = fptree_insert(p.tree, n * 0x9e3779b97f4a7c15u, n)) == 0)
        n++;
    ck_assert_int_eq(code, PA_ENOSPC);
    ck_assert_uint_gt(n, 10000);
    CK_OK(fptree_check(p.tree, NULL));
    for (uint64_t i = 0; i < n; i++)
        EXPECT(fptree_find(p.tree, i * 0x9e3779b97f4a7c15u, &value) == 0 && value == i, "key %llu",
               (unsigned long long)i);
    for (uint64_t i = 0; i < n; i++)
        CK_OK(fptree_remove(p.tree, i * 0x9e3779b97f4a7c15u));
    for (uint64_t i = 0; i < n; i++)
        CK_OK(fptree_insert(p.tree, i * 0x9e3779b97f4a7c15u, i));
    CK_OK(fptree_close(p.tree));
    pool_finish(p.pool, p.dir.text);
}
END_TEST

START_TEST(fptree__reads_a_pool_that_is_open_read_only)
{
    struct plot p = plot_new();
    uint64_t value;
    for (uint64_t key = 0; key < 1000; key++)
        CK_OK(fptree_insert(p.tree, key, key));
    CK_OK(fptree_close(p.tree));
    pool_finish(p.pool, p.dir.text);
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    CK_OK(pa_open(p.dir.text, &o, &p.pool));
    plot_open_trees(&p);
    for (uint64_t key = 0; key < 1000; key++)
        CK_OK(fptree_find(p.tree, key, &value));
    CK_FAILS(fptree_insert(p.tree, 5000, 1), PA_EACCES, "read-only");
    fptree *t;
    CK_FAILS(fptree_open(p.pool, &p.anchors[1], &t), PA_EACCES, "read-only");
    CK_OK(fptree_close(p.tree));
    CK_OK(pa_close(p.pool));
}
END_TEST

static void add(Suite *s)
{
    ADD(s, fptree__keeps_keys_over_reopens_and_gives_blocks_back, 60);
    ADD(s, fptree__trees_share_a_pool, 30);
    ADD(s, fptree__a_new_tree_is_empty_whatever_its_block_held, 30);
    ADD(s, fptree__refuses_anchors_that_are_none, 30);
    ADD(s, fptree__in_a_full_pool_removes_and_recovers_its_strength, 60);
    ADD(s, fptree__reads_a_pool_that_is_open_read_only, 30);
    ADD(s, leaf__match_agrees_with_the_bytes, 20);
    ADD(s, tree__is_empty_when_new, 20);
    ADD(s, tree__refuses_a_key_twice_and_replaces_on_demand, 20);
    ADD(s, tree__gives_everything_back_in_any_order, 60);
    ADD(s, tree__fills_leaves_with_ascending_keys, 20);
    ADD(s, tree__agrees_with_an_array, 60);
    ADD(s, tree__scan_visits_in_order_from_any_key, 30);
    ADD(s, tree__scan_may_change_the_tree, 20);
    ADD(s, tree__needs_one_fence_per_change, 20);
    ADD(s, tree__without_space_stays_as_it_was, 20);
    ADD(s, tree__read_only_finds_and_refuses_changes, 20);
    ADD(s, tree__names_the_damage, 20);
    ADD(s, tree__survives_any_damaged_word, 60);
    ADD(s, tree__under_a_log_redoes_groups, 30);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "fptree", add);
}
