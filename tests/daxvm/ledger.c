/* SPDX-License-Identifier: BSD-3-Clause */
/* ledger.c -- see ledger.h. */
#include "tests/daxvm/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "pool/pool.h"
#include "pool/pool_fptree.h"
#include "tests/support/owners.h"

#define MAGIC 0x72656764656c7870ull

struct pm_ledger_root {
    pa_pptr owners, book, anchor;
    uint64_t magic; /* stored last: the ledger is whole */
    uint64_t unused;
};

static struct pm_ledger_root *root_of(const struct ledger *l)
{
    return pa_direct(l->pool, l->root);
}

static void store64(struct ledger *l, uint64_t *at, uint64_t value)
{
    media_store64(pool_media(l->pool), at, value);
    pa_persist(l->pool, at, sizeof *at);
}

/* --- opening ------------------------------------------------------------------------------------------------------------- */

static int attach(struct ledger *l)
{
    struct pm_ledger_root *root = root_of(l);
    l->owners = pa_direct(l->pool, root->owners);
    l->book = pa_direct(l->pool, root->book);
    return fptree_open(l->pool, &root->anchor, &l->tree);
}

int ledger_open(struct ledger *l, pa_pool *pool)
{
    *l = (struct ledger){.pool = pool};
    int r = pa_root(pool, sizeof(struct pm_ledger_root), &l->root);
    if (r != 0)
        return r;
    return root_of(l)->magic == MAGIC ? attach(l) : 1;
}

static int make_zeroed(struct ledger *l, pa_pptr *dst, size_t size)
{
    int r = pa_allocate(l->pool, dst, size);
    if (r == 0) {
        void *block = pa_direct(l->pool, *dst);
        media_set(pool_media(l->pool), block, 0, size);
        pa_persist(l->pool, block, size);
    }
    return r;
}

int ledger_make(struct ledger *l, pa_pool *pool)
{
    int r = ledger_open(l, pool);
    if (r != 1)
        return r == 0 ? PA_EEXIST : r;
    struct pm_ledger_root *root = root_of(l);
    r = make_zeroed(l, &root->owners, LEDGER_THREADS * LEDGER_OWNERS * sizeof(pa_pptr));
    if (r == 0)
        r = make_zeroed(l, &root->book, sizeof(struct pm_book));
    if (r == 0)
        r = attach(l);
    if (r == 0)
        store64(l, &root->magic, MAGIC);
    return r;
}

void ledger_close(struct ledger *l)
{
    fptree_close(l->tree);
    l->tree = NULL;
}

/* --- operations ---------------------------------------------------------------------------------------------------------- */

static void fill(struct ledger *l, uint64_t which, uint64_t size, uint64_t tag)
{
    void *block = pa_direct(l->pool, l->owners[which]);
    block_fill(block, size, tag);
    pa_persist(l->pool, block, size);
}

static void expect(struct ledger *l, uint64_t which, uint64_t size, uint64_t tag)
{
    struct pm_expected *e = &l->book->blocks[which];
    media_store64(pool_media(l->pool), &e->tag, tag);
    media_store64(pool_media(l->pool), &e->size, size);
    pa_persist(l->pool, e, sizeof *e);
}

static void begin(struct ledger *l, unsigned thread, const struct pm_intent *wanted)
{
    const struct media *m = pool_media(l->pool);
    struct pm_intent *i = &l->book->intents[thread];
    media_store64(m, &i->kind, wanted->kind);
    media_store64(m, &i->which, wanted->which);
    media_store64(m, &i->size, wanted->size);
    media_store64(m, &i->tag, wanted->tag);
    media_store64(m, &i->begun, i->done + 1);
    pa_persist(l->pool, i, sizeof *i);
}

static void end(struct ledger *l, unsigned thread)
{
    struct pm_intent *i = &l->book->intents[thread];
    store64(l, &i->done, i->begun);
}

static int act(struct ledger *l, const struct pm_intent *i)
{
    switch ((enum ledger_kind)i->kind) {
    case LEDGER_ALLOCATE:
        return pa_allocate(l->pool, &l->owners[i->which], i->size);
    case LEDGER_FREE:
        return pa_deallocate(l->pool, &l->owners[i->which]);
    case LEDGER_RESIZE:
        return pa_reallocate(l->pool, &l->owners[i->which], i->size);
    case LEDGER_PUT:
        return fptree_upsert(l->tree, i->which + 1, i->tag);
    case LEDGER_REMOVE:
        return fptree_remove(l->tree, i->which + 1);
    }
    return PA_EINVAL;
}

/* What the owner or key holds after the operation. */
static void note(struct ledger *l, const struct pm_intent *i)
{
    switch ((enum ledger_kind)i->kind) {
    case LEDGER_ALLOCATE:
        fill(l, i->which, i->size, i->tag);
        expect(l, i->which, i->size, i->tag);
        break;
    case LEDGER_FREE:
        expect(l, i->which, 0, 0);
        break;
    case LEDGER_RESIZE: /* the old part is as it was, and the tag stays */
        fill(l, i->which, i->size, l->book->blocks[i->which].tag);
        expect(l, i->which, i->size, l->book->blocks[i->which].tag);
        break;
    case LEDGER_PUT:
    case LEDGER_REMOVE:
        store64(l, &l->book->values[i->which], i->kind == LEDGER_PUT ? i->tag : 0);
        break;
    }
}

int ledger_do(struct ledger *l, unsigned thread, enum ledger_kind kind, uint64_t which, uint64_t size, uint64_t tag)
{
    struct pm_intent i = {.kind = kind, .which = which, .size = size, .tag = tag};
    begin(l, thread, &i);
    int r = act(l, &i);
    if (r == 0)
        note(l, &i);
    if (r == 0 || r == PA_ENOSPC)
        end(l, thread);
    return r == PA_ENOSPC ? 0 : r;
}

/* --- judging ------------------------------------------------------------------------------------------------------------- */

#define WRONG(...) (snprintf(message, size, __VA_ARGS__), false)

static bool holds(const struct ledger *l, uint64_t which, uint64_t bytes, uint64_t tag)
{
    pa_pptr p = l->owners[which];
    if (bytes == 0)
        return pa_is_null(p);
    return !pa_is_null(p) && pa_usable_size(l->pool, p) >= bytes && block_is(pa_direct(l->pool, p), bytes, tag);
}

static uint64_t value_of(const struct ledger *l, uint64_t which)
{
    uint64_t value = 0;
    return fptree_find(l->tree, which + 1, &value) == 0 ? value : 0;
}

/* Bring the book to what an operation in flight left, which must be the state before it or after it. */
static bool end_block(struct ledger *l, const struct pm_intent *i)
{
    const struct pm_expected *old = &l->book->blocks[i->which];
    bool named = !pa_is_null(l->owners[i->which]);
    if (i->kind == LEDGER_ALLOCATE) {
        if (!named)
            return old->size == 0;
        if (pa_usable_size(l->pool, l->owners[i->which]) < i->size)
            return false;
        note(l, i);
        return true;
    }
    if (i->kind == LEDGER_FREE) {
        if (!named) {
            note(l, i);
            return true;
        }
        return holds(l, i->which, old->size, old->tag);
    }
    uint64_t least = i->size < old->size ? i->size : old->size;
    if (!named || !holds(l, i->which, least, old->tag))
        return false;
    expect(l, i->which, least, old->tag);
    return true;
}

static bool end_key(struct ledger *l, const struct pm_intent *i)
{
    uint64_t now = value_of(l, i->which), wanted = i->kind == LEDGER_PUT ? i->tag : 0;
    if (now != wanted)
        return now == l->book->values[i->which];
    note(l, i);
    return true;
}

static bool end_in_flight(struct ledger *l, char *message, size_t size)
{
    for (unsigned t = 0; t < LEDGER_THREADS; t++) {
        const struct pm_intent *i = &l->book->intents[t];
        if (i->begun == i->done)
            continue;
        if (i->begun != i->done + 1)
            return WRONG("thread %u began operation %" PRIu64 " after %" PRIu64, t, i->begun, i->done);
        bool good = i->kind == LEDGER_PUT || i->kind == LEDGER_REMOVE ? end_key(l, i) : end_block(l, i);
        if (!good)
            return WRONG("operation %" PRIu64 " of thread %u (kind %" PRIu64 ", %" PRIu64 ", %" PRIu64
                         " bytes) is half done",
                         i->begun, t, i->kind, i->which, i->size);
        end(l, t);
    }
    return true;
}

static bool blocks_are_right(const struct ledger *l, char *message, size_t size)
{
    for (uint64_t i = 0; i < LEDGER_THREADS * LEDGER_OWNERS; i++) {
        const struct pm_expected *e = &l->book->blocks[i];
        if (!holds(l, i, e->size, e->tag))
            return WRONG("owner %" PRIu64 " names {%" PRIx64 ", %" PRIx64
                         "} of %zu bytes, which is not the block of %" PRIu64 " bytes with tag %" PRIx64,
                         i, l->owners[i].segment, l->owners[i].offset, pa_usable_size(l->pool, l->owners[i]), e->size,
                         e->tag);
    }
    return true;
}

static int count_pair(uint64_t key, uint64_t value, void *arg)
{
    (void)key;
    (void)value;
    ++*(uint64_t *)arg;
    return 0;
}

static bool keys_are_right(const struct ledger *l, char *message, size_t size)
{
    uint64_t expected = 0, found = 0;
    for (uint64_t i = 0; i < LEDGER_THREADS * LEDGER_KEYS; i++) {
        expected += l->book->values[i] != 0;
        if (value_of(l, i) != l->book->values[i])
            return WRONG("key %" PRIu64 " has the value %" PRIx64 " instead of %" PRIx64, i + 1, value_of(l, i),
                         l->book->values[i]);
    }
    if (fptree_scan(l->tree, 0, count_pair, &found) != 0 || found != expected)
        return WRONG("a scan finds %" PRIu64 " keys instead of %" PRIu64, found, expected);
    return true;
}

static int add_tree_block(pa_off block, void *arg)
{
    blocks_add(arg, block, 0);
    return 0;
}

/* Exactly what the root, the owners and the tree name is allocated. */
static bool nothing_leaked(const struct ledger *l, char *message, size_t size)
{
    struct blocks expected = {0};
    blocks_add(&expected, pa_off_of(l->pool, l->root), 0);
    blocks_add(&expected, pa_off_of(l->pool, root_of(l)->owners), 0);
    blocks_add(&expected, pa_off_of(l->pool, root_of(l)->book), 0);
    blocks_add(&expected, pa_off_of(l->pool, root_of(l)->anchor), 0);
    for (uint64_t i = 0; i < LEDGER_THREADS * LEDGER_OWNERS; i++)
        if (!pa_is_null(l->owners[i]))
            blocks_add(&expected, pa_off_of(l->pool, l->owners[i]), 0);
    bool good = fptree_check(l->tree, NULL) == 0 && fptree_foreach_block(l->tree, add_tree_block, &expected) == 0;
    if (!good)
        snprintf(message, size, "the tree: %s", pa_errormsg());
    good = good && blocks_are_all(l->pool, &expected, message, size);
    blocks_free(&expected);
    return good;
}

static int count_name(const char *name, void *arg)
{
    (void)name;
    ++*(uint64_t *)arg;
    return 0;
}

static bool files_agree(const struct ledger *l, uint64_t *ret_files, pa_stats *ret_stats)
{
    *ret_files = 0;
    return pa_get_stats(l->pool, ret_stats) == 0 && dir_foreach(pool_dir(l->pool), count_name, ret_files) == 0 &&
           *ret_files == 1 + ret_stats->segment_files + ret_stats->huge_files;
}

/* Tried for a while: the pool's own thread may be making a file. */
static bool no_stray_file(const struct ledger *l, char *message, size_t size)
{
    pa_stats stats = {0};
    uint64_t files;
    struct timespec t = {0, 20000000};
    for (int i = 0; i < 100; i++, nanosleep(&t, NULL))
        if (files_agree(l, &files, &stats))
            return true;
    return WRONG("%" PRIu64 " files instead of 1, %" PRIu64 " segments and %" PRIu64 " huge blocks", files,
                 stats.segment_files, stats.huge_files);
}

bool ledger_verify(struct ledger *l, char *message, size_t size)
{
    return end_in_flight(l, message, size) && blocks_are_right(l, message, size) && keys_are_right(l, message, size) &&
           nothing_leaked(l, message, size) && no_stray_file(l, message, size);
}
