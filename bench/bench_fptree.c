/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_fptree.c -- one ordered map of random 64-bit keys: the FPTree on a pool, and LMDB (no sync, write map, one transaction per
 * change, one read transaction for all look-ups, big-endian keys), which survives a crash of the process only.
 *
 *   insert  N keys into the empty map          update  a new value for each key
 *   find    each key, in another order         remove  each key, down to the empty map
 *   scan    100 pairs from a random key        mix     half finds, half updates
 *
 * Option keys=N (default 300,000). Threads share one map; each works on its own part of the keys.
 */
#include <fptree.h>
#include <lmdb.h>
#include <pallocator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/harness.h"

enum { TURN = 500, SCAN_PAIRS = 100, THREADS_MAX = 64 };

/* A map under test. session: what a thread needs to read. */
struct subject {
    const char *name;
    bool (*reset)(void); /* an empty map */
    void *(*begin)(bool writes);
    void (*end)(void *session);
    int (*insert)(uint64_t key, uint64_t value);
    int (*find)(void *session, uint64_t key, uint64_t *ret_value);
    int (*update)(uint64_t key, uint64_t value);
    int (*remove)(uint64_t key);
    int (*scan)(void *session, uint64_t from, uint64_t *ret_sum);
    void (*counts)(uint64_t *ret_fences, uint64_t *ret_lines); /* NULL = not known */
};

static uint64_t *keys, *order; /* distinct; the same keys in another order */
static size_t key_count;

/* ------------------------------------------------------------------------------------------------ FPTree */

static struct {
    pa_pool *pool;
    fptree *tree;
    unsigned number;
} ours;

static bool ours_reset(void)
{
    char path[512];
    pa_pptr root;
    if (ours.pool != NULL) {
        fptree_close(ours.tree);
        pa_close(ours.pool);
    }
    /* The harness removes all directories at exit. */
    snprintf(path, sizeof path, "rm -rf '%s/fptree%u'", bench_directory(), ours.number);
    if (system(path) != 0)
        return false;
    snprintf(path, sizeof path, "%s/fptree%u", bench_directory(), ++ours.number);
    if (pa_create(path, NULL, &ours.pool) != 0 || pa_root(ours.pool, sizeof(pa_pptr), &root) != 0 ||
        fptree_open(ours.pool, pa_direct(ours.pool, root), &ours.tree) != 0) {
        fprintf(stderr, "bench_fptree: %s\n", pa_errormsg());
        return false;
    }
    return true;
}

static void *ours_begin(bool writes)
{
    (void)writes;
    return NULL;
}

static void ours_end(void *session)
{
    (void)session;
}

static int ours_insert(uint64_t key, uint64_t value)
{
    return fptree_insert(ours.tree, key, value);
}

static int ours_find(void *session, uint64_t key, uint64_t *ret_value)
{
    (void)session;
    return fptree_find(ours.tree, key, ret_value);
}

static int ours_update(uint64_t key, uint64_t value)
{
    return fptree_upsert(ours.tree, key, value);
}

static int ours_remove(uint64_t key)
{
    return fptree_remove(ours.tree, key);
}

struct sum {
    uint64_t value, left;
};

static int add_pair(uint64_t key, uint64_t value, void *arg)
{
    struct sum *s = arg;
    s->value += key ^ value;
    return --s->left == 0;
}

static int ours_scan(void *session, uint64_t from, uint64_t *ret_sum)
{
    struct sum s = {0, SCAN_PAIRS};
    (void)session;
    int stopped = fptree_scan(ours.tree, from, add_pair, &s);
    *ret_sum = s.value;
    return stopped < 0 ? stopped : 0;
}

static void ours_counts(uint64_t *ret_fences, uint64_t *ret_lines)
{
    pa_stats stats = {0};
    pa_get_stats(ours.pool, &stats);
    *ret_fences = stats.fences;
    *ret_lines = stats.flushed_lines;
}

/* ------------------------------------------------------------------------------------------------ LMDB */

static struct {
    MDB_env *env;
    MDB_dbi map;
} theirs;

static bool theirs_open(void)
{
    char path[512];
    MDB_txn *txn;
    snprintf(path, sizeof path, "%s/lmdb", bench_directory());
    if (mkdir(path, 0700) != 0 || mdb_env_create(&theirs.env) != 0)
        return false;
    mdb_env_set_mapsize(theirs.env, (size_t)8 << 30);
    mdb_env_set_maxreaders(theirs.env, THREADS_MAX * 4);
    if (mdb_env_open(theirs.env, path, MDB_NOSYNC | MDB_WRITEMAP | MDB_NOTLS, 0600) != 0 ||
        mdb_txn_begin(theirs.env, NULL, 0, &txn) != 0)
        return false;
    return mdb_dbi_open(txn, NULL, 0, &theirs.map) == 0 && mdb_txn_commit(txn) == 0;
}

static bool theirs_reset(void)
{
    MDB_txn *txn;
    if (theirs.env == NULL && !theirs_open())
        return false;
    return mdb_txn_begin(theirs.env, NULL, 0, &txn) == 0 && mdb_drop(txn, theirs.map, 0) == 0 &&
           mdb_txn_commit(txn) == 0;
}

static void *theirs_begin(bool writes)
{
    MDB_txn *txn = NULL;
    if (!writes)
        mdb_txn_begin(theirs.env, NULL, MDB_RDONLY, &txn);
    return txn;
}

static void theirs_end(void *session)
{
    if (session != NULL)
        mdb_txn_abort(session);
}

static int theirs_put(uint64_t key, uint64_t value)
{
    MDB_txn *txn;
    uint64_t big_endian = __builtin_bswap64(key);
    MDB_val k = {sizeof big_endian, &big_endian}, v = {sizeof value, &value};
    int code = mdb_txn_begin(theirs.env, NULL, 0, &txn);
    if (code == 0)
        code = mdb_put(txn, theirs.map, &k, &v, 0);
    return code == 0 ? mdb_txn_commit(txn) : code;
}

static int theirs_find(void *session, uint64_t key, uint64_t *ret_value)
{
    uint64_t big_endian = __builtin_bswap64(key);
    MDB_val k = {sizeof big_endian, &big_endian}, v;
    int code = mdb_get(session, theirs.map, &k, &v);
    if (code == 0)
        memcpy(ret_value, v.mv_data, sizeof *ret_value);
    return code;
}

static int theirs_remove(uint64_t key)
{
    MDB_txn *txn;
    uint64_t big_endian = __builtin_bswap64(key);
    MDB_val k = {sizeof big_endian, &big_endian};
    int code = mdb_txn_begin(theirs.env, NULL, 0, &txn);
    if (code == 0)
        code = mdb_del(txn, theirs.map, &k, NULL);
    return code == 0 ? mdb_txn_commit(txn) : code;
}

static int theirs_scan(void *session, uint64_t from, uint64_t *ret_sum)
{
    MDB_cursor *cursor;
    uint64_t big_endian = __builtin_bswap64(from), sum = 0;
    MDB_val k = {sizeof big_endian, &big_endian}, v;
    if (mdb_cursor_open(session, theirs.map, &cursor) != 0)
        return -1;
    int code = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    for (unsigned i = 0; code == 0 && i < SCAN_PAIRS; i++) {
        uint64_t key, value;
        memcpy(&key, k.mv_data, sizeof key);
        memcpy(&value, v.mv_data, sizeof value);
        sum += __builtin_bswap64(key) ^ value;
        code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    *ret_sum = sum;
    return code == MDB_NOTFOUND ? 0 : code;
}

static const struct subject subjects[] = {
    {"pallocator", ours_reset, ours_begin, ours_end, ours_insert, ours_find, ours_update, ours_remove, ours_scan,
     ours_counts},
    {"lmdb", theirs_reset, theirs_begin, theirs_end, theirs_put, theirs_find, theirs_put, theirs_remove, theirs_scan,
     NULL},
};

/* ------------------------------------------------------------------------------------------------ cases */

enum what { INSERT, FIND, UPDATE, REMOVE, SCAN, MIX, WHATS };
static const char *const what_names[WHATS] = {"insert", "find", "update", "remove", "scan100", "mix"};

/* One case's parameters; also what a run of it shares. */
struct plan {
    const struct subject *subject;
    enum what what;
    uint64_t fences, lines;
    const char *error;
};

static void *setup(const struct bench_case *c)
{
    struct plan *plan = (struct plan *)c->params;
    plan->error = plan->subject->reset() ? NULL : "cannot make an empty map";
    for (size_t i = 0; plan->error == NULL && plan->what != INSERT && i < key_count; i++)
        if (plan->subject->insert(keys[i], i) != 0)
            plan->error = "cannot fill the map";
    if (plan->subject->counts != NULL)
        plan->subject->counts(&plan->fences, &plan->lines);
    return plan;
}

static int do_one(const struct plan *plan, void *session, size_t i)
{
    const struct subject *s = plan->subject;
    uint64_t value = i;
    int code = 0;
    switch (plan->what) {
    case INSERT:
        return s->insert(keys[i], i);
    case FIND:
        code = s->find(session, order[i], &value);
        break;
    case UPDATE:
        return s->update(order[i], i);
    case REMOVE:
        return s->remove(order[i]);
    case SCAN:
        code = s->scan(session, order[i], &value);
        break;
    default:
        return i % 2 == 0 ? s->find(session, order[i], &value) : s->update(order[i], i);
    }
    bench_keep(&value);
    return code;
}

static void run(struct bench *b)
{
    struct plan *plan = bench_shared(b);
    size_t part = key_count / bench_threads(b), first = bench_thread(b) * part, done = 0;
    bool reads = plan->what == FIND || plan->what == SCAN || plan->what == MIX;
    void *session = plan->error == NULL ? plan->subject->begin(!reads) : NULL;
    if (plan->error != NULL)
        bench_fail(b, plan->error);
    while (bench_more(b, TURN)) {
        if (plan->error != NULL)
            continue;
        for (size_t i = 0; i < TURN; i++, done++)
            if (do_one(plan, session, first + done % part) != 0 && plan->error == NULL) {
                plan->error = "an operation failed";
                bench_fail(b, plan->error);
            }
    }
    if (plan->error == NULL)
        plan->subject->end(session);
}

static void teardown(struct bench *b, void *shared)
{
    struct plan *plan = shared;
    if (plan->error != NULL || plan->subject->counts == NULL)
        return;
    uint64_t fences, lines;
    plan->subject->counts(&fences, &lines);
    bench_count_per_op(b, "fences", (double)(fences - plan->fences));
    bench_count_per_op(b, "lines", (double)(lines - plan->lines));
}

static void make_keys(void)
{
    uint64_t random = 42;
    key_count = strtoull(bench_option("keys", "300000"), NULL, 0) / (TURN * 8) * (TURN * 8);
    if (key_count == 0)
        key_count = TURN * 8;
    keys = malloc(key_count * sizeof *keys);
    order = malloc(key_count * sizeof *order);
    if (keys == NULL || order == NULL)
        abort();
    for (size_t i = 0; i < key_count; i++)
        keys[i] = order[i] = bench_random(&random); /* a bijection of a counter: distinct */
    for (size_t i = key_count; i-- > 1;) {
        size_t j = bench_random(&random) % (i + 1);
        uint64_t key = order[i];
        order[i] = order[j];
        order[j] = key;
    }
}

static void add_case(const struct subject *s, enum what what, unsigned threads)
{
    static struct plan plans[64];
    static size_t count;
    char name[96];
    struct plan *plan = &plans[count++];
    *plan = (struct plan){.subject = s, .what = what};
    snprintf(name, sizeof name, "%s/%s/%zu", s->name, what_names[what], key_count);
    bench_register(&(struct bench_case){.name = name,
                                        .threads = threads,
                                        .params = plan,
                                        .fixed_ops = what == SCAN ? key_count / 20 / TURN * TURN : key_count / threads,
                                        .setup = setup,
                                        .run = run,
                                        .teardown = teardown});
}

void bench_register_all(void)
{
    make_keys();
    for (size_t s = 0; s < sizeof subjects / sizeof subjects[0]; s++) {
        for (int what = 0; what < MIX; what++)
            add_case(&subjects[s], what, 1);
        if (subjects[s].counts == NULL)
            continue; /* LMDB has one writer at a time, and a long reader keeps it from using pages again */
        add_case(&subjects[s], MIX, 1);
        static const unsigned threads[] = {2, 8};
        for (size_t i = 0; i < 2; i++) {
            add_case(&subjects[s], INSERT, threads[i]);
            add_case(&subjects[s], FIND, threads[i]);
            add_case(&subjects[s], MIX, threads[i]);
        }
    }
}
