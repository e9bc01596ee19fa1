/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv.c -- the storage engine of kv.h on libpallocator, through its public API only.
 *
 *   root block: | header, tree anchor | slot 0 | slot 1 | ... | slot 127 |       one 64-byte line each
 *                        |                |
 *                     FPTree            fresh, stale: the owners of blocks that are on their way in or out
 *                  key -> pa_off ---> value block {key, length, checksum, bytes}
 *
 * Who owns a block. A record's block is owned by the tree, which names it by its 8-byte pa_off. The allocator wants a 16-byte
 * owner pointer in the pool for every allocate and free, so each block enters and leaves through a slot.
 *
 * Locks. A key belongs to one of 128 shards (by a hash). The shard's mutex is held over the whole of a get, put or delete, so
 * operations on one key never overlap and a slot is used by one thread at a time; different shards run in parallel.
 * The mutexes are DRAM; they rank above everything inside the library.
 *
 * Invariants, on media, at every instruction:
 *   I1  every value in the tree is the pa_off of an allocated and completely filled block with that key;
 *   I2  every allocated value block is named by the tree, or by its shard's slot, or by both;
 *   I3  a slot never names a block that is free: a block is freed only through `stale`, by pa_deallocate, which nulls
 *       it in the same failure-atomic step, and `fresh` has durably ceased to name the block before.
 * So after a crash one rule resolves every slot pointer p: if the tree has p's key with the value p, the block is a record:
 * null p; else nobody wants it: pa_deallocate(&p). A block that was never filled has any bytes for a key, but whatever key they
 * spell, the tree cannot have this block as its value (I1). The rule needs no note of what was going on, and doing it twice,
 * or crashing in it, is harmless.
 *
 * put(key), N = new block, O = the block that it replaces, if any:
 *   step                             | durable after it               | a crash up to the next step: slot -> outcome
 *   P1 fresh = null (DRAM view only) | nothing new                    | fresh: live block or null -> nulled: old state
 *   P2 pa_allocate(&fresh)           | fresh = N, N allocated         | fresh: N is not in the tree -> freed: old state
 *   P3 fill N; stale = O; one fence  | N's contents; stale = O        | fresh freed, stale: O in the tree -> nulled: old
 *   P4 fptree_upsert(key, N)         | tree: key -> N (atomic)        | fresh: in the tree -> nulled; stale: O no longer in
 *                                    |                                | the tree -> freed: new state
 *   P5 pa_deallocate(&stale)         | O freed, stale = null (atomic) | fresh: nulled: new state
 *   After P5 fresh still names N, a live block. That saves a fence; the shard's next change clears it (P1, D1) in the step that
 *   is before N could be freed. P3's two parts need no order between them: with either alone, or half of the 16 bytes of
 *   stale, O is still in the tree and N is not.
 *
 * delete(key), O = its block:
 *   D1 fresh = null; stale = O; one fence | both (one line)           | stale: O in the tree -> nulled: old state
 *   D2 fptree_remove(key)                 | key gone (atomic)         | stale: not in the tree -> freed: new state
 *   D3 pa_deallocate(&stale)              | O freed, stale = null     | nothing pending: new state
 *
 * A delete in flight and a put in flight need not be told apart: a block that the tree names is kept, any other goes.
 * Half-written pointers. A pa_pptr is two words of one line, and a line reaches the media as a prefix of the stores to it.
 * slot_set stores offset before segment, slot_clear segment before offset; so a half-written pointer has segment 0, where the
 * pool file lies, which holds no blocks. The rule above nulls it.
 *
 * Fences at most, tree splits apart: put new 3 + 1 + 2, put replacing 3 + 1 + 1 + 2, delete 1 + 1 + 2.
 */
#include "examples/kv.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fptree.h>
#include <pallocator.h>
#include <xxhash.h>

#define KV_MAGIC  UINT64_C(0x31765f6b5f616c70) /* "pla_k_v1" */
#define KV_LAYOUT "example-kv"

/** A value block. Filled before the tree names it, never changed afterwards. */
struct pm_kv_value {
    uint64_t key;      /*  0 */
    uint64_t length;   /*  8  bytes that follow the header */
    uint64_t checksum; /* 16  of key, length and bytes */
    char bytes[];      /* 24 */
};
_Static_assert(sizeof(struct pm_kv_value) == 24, "on media");

/** Owners of the blocks that are on their way in or out. Guarded by the shard's mutex. One line: see the table above. */
struct pm_kv_slot {
    pa_pptr fresh;        /*  0  allocated by a put; names a live block until the shard's next change */
    pa_pptr stale;        /* 16  about to be freed */
    uint64_t reserved[4]; /* 32 */
};
_Static_assert(sizeof(struct pm_kv_slot) == 64, "a slot is one cache line");

/** The pool's root. A root whose size is a multiple of 64 starts a line, and so does every slot. */
struct pm_kv_root {
    uint64_t magic;                     /*  0  stored last at creation, by one 8-byte store; zero = not set up yet */
    uint64_t reserved;                  /*  8 */
    pa_pptr tree;                       /* 16  anchor, kept by the tree */
    uint64_t padding[4];                /* 32 */
    struct pm_kv_slot slots[KV_SHARDS]; /* 64 */
};
_Static_assert(sizeof(struct pm_kv_root) == 64 + KV_SHARDS * 64, "on media");

struct kv_shard {
    _Alignas(64) pthread_mutex_t lock;
};

struct kv {
    pa_pool *pool;
    fptree *tree;
    struct pm_kv_root *root;
    struct kv_shard shards[KV_SHARDS];
};

const char *const kv_engine = "libpallocator";
const char *const kv_variants = "none";

static _Thread_local const char *own_error; /* set when the failure is not the library's */

const char *kv_errormsg(void)
{
    return own_error != NULL ? own_error : pa_errormsg();
}

static int library_error(void)
{
    own_error = NULL;
    return KV_ERROR;
}

static int error(const char *sentence)
{
    own_error = sentence;
    return KV_ERROR;
}

static unsigned shard_of(uint64_t key)
{
    return (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 57);
}
_Static_assert(KV_SHARDS == 1u << (64 - 57), "shard_of uses the top 7 bits");

static uint64_t checksum_of(uint64_t key, const void *bytes, size_t length)
{
    return XXH3_64bits_withSeed(bytes, length, key ^ (length << 48));
}

/* Two words of one line; the order makes a half-written pointer recognisable (see above). */
static void slot_set(pa_pptr *p, pa_pptr block)
{
    __atomic_store_n(&p->offset, block.offset, __ATOMIC_RELEASE);
    __atomic_store_n(&p->segment, block.segment, __ATOMIC_RELEASE);
}

static void slot_clear(pa_pptr *p)
{
    __atomic_store_n(&p->segment, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&p->offset, 0, __ATOMIC_RELEASE);
}

/** I1 and I2's question: does the tree name this block? The block's bytes may be anything. */
static int is_named(struct kv *kv, pa_pptr block, bool *ret_named)
{
    *ret_named = false;
    if (pa_usable_size(kv->pool, block) < sizeof(struct pm_kv_value))
        return KV_OK;
    const struct pm_kv_value *value = pa_direct(kv->pool, block);
    uint64_t off;
    int r = fptree_find(kv->tree, value->key, &off);
    if (r < 0 && r != PA_ENOENT)
        return library_error();
    *ret_named = r == 0 && off == pa_off_of(kv->pool, block);
    return KV_OK;
}

/** The one rule for a slot pointer that a crash left. */
static int resolve(struct kv *kv, pa_pptr *pending, struct kv_recovery *recovery)
{
    if (pa_is_null(*pending))
        return KV_OK;
    bool named;
    if (is_named(kv, *pending, &named) != KV_OK)
        return KV_ERROR;
    if (named || pa_usable_size(kv->pool, *pending) == 0) { /* a record, or half a pointer */
        recovery->kept += named;
        slot_clear(pending);
        pa_persist(kv->pool, pending, sizeof *pending);
        return KV_OK;
    }
    if (pa_deallocate(kv->pool, pending) < 0)
        return library_error();
    recovery->freed++;
    return KV_OK;
}

static int resolve_all(struct kv *kv, struct kv_recovery *recovery)
{
    for (unsigned i = 0; i < KV_SHARDS; i++) {
        struct pm_kv_slot *slot = &kv->root->slots[i];
        if (resolve(kv, &slot->fresh, recovery) != KV_OK || resolve(kv, &slot->stale, recovery) != KV_OK)
            return KV_ERROR;
    }
    return KV_OK;
}

/** Common end of create and open; takes over the pool, also on failure. */
static int attach(pa_pool *pool, struct kv **ret, struct kv_recovery *recovery)
{
    struct kv *kv = aligned_alloc(_Alignof(struct kv), sizeof *kv);
    if (kv == NULL) {
        pa_close(pool);
        return error("no memory for the store");
    }
    memset(kv, 0, sizeof *kv);
    kv->pool = pool;
    for (unsigned i = 0; i < KV_SHARDS; i++)
        pthread_mutex_init(&kv->shards[i].lock, NULL);
    int r;
    pa_pptr root;
    if (pa_root(pool, sizeof *kv->root, &root) < 0) {
        r = library_error();
        goto fail;
    }
    kv->root = pa_direct(pool, root);
    if (kv->root->magic == 0) { /* a new pool, or a crash before this line: the zeroed root is a valid empty store */
        __atomic_store_n(&kv->root->magic, KV_MAGIC, __ATOMIC_RELEASE);
        pa_persist(pool, &kv->root->magic, sizeof kv->root->magic);
    }
    if (kv->root->magic != KV_MAGIC) {
        r = error("the pool's root is not this program's");
        goto fail;
    }
    if (fptree_open(pool, &kv->root->tree, &kv->tree) < 0) {
        r = library_error();
        goto fail;
    }
    r = resolve_all(kv, recovery);
    if (r != KV_OK)
        goto fail;
    *ret = kv;
    return KV_OK;
fail:
    fptree_close(kv->tree);
    pa_close(pool);
    free(kv);
    return r;
}

static void options_init(pa_options *o)
{
    pa_options_init(o);
    o->layout = KV_LAYOUT;
    o->segment_size = 4u << 20;
    o->flags = PA_SPARSE; /* so that held bytes are pages in use, as for the peer */
}

int kv_create(const char *dir, const struct kv_options *options, struct kv **ret)
{
    (void)options;
    pa_options o;
    options_init(&o);
    pa_pool *pool;
    if (pa_create(dir, &o, &pool) < 0)
        return library_error();
    struct kv_recovery none = {0, 0};
    return attach(pool, ret, &none);
}

int kv_open(const char *dir, const struct kv_options *options, struct kv **ret, struct kv_recovery *ret_recovery)
{
    (void)options;
    pa_options o;
    options_init(&o);
    pa_pool *pool;
    if (pa_open(dir, &o, &pool) < 0)
        return library_error();
    struct kv_recovery recovery = {0, 0};
    int r = attach(pool, ret, &recovery);
    if (r == KV_OK && ret_recovery != NULL)
        *ret_recovery = recovery;
    return r;
}

int kv_close(struct kv *kv)
{
    if (kv == NULL)
        return KV_OK;
    int r = fptree_close(kv->tree) < 0 ? library_error() : KV_OK;
    if (pa_close(kv->pool) < 0)
        r = library_error();
    for (unsigned i = 0; i < KV_SHARDS; i++)
        pthread_mutex_destroy(&kv->shards[i].lock);
    free(kv);
    return r;
}

/** P3: fill the new block and announce the old one, both behind one fence. */
static void fill(struct kv *kv, struct pm_kv_slot *slot, uint64_t key, const void *bytes, size_t length, pa_off old)
{
    struct pm_kv_value *value = pa_direct(kv->pool, slot->fresh);
    value->key = key;
    value->length = length;
    value->checksum = checksum_of(key, bytes, length);
    memcpy(value->bytes, bytes, length);
    pa_flush(kv->pool, value, sizeof *value + length);
    if (old != 0) {
        slot_set(&slot->stale, pa_off_pptr(kv->pool, old));
        pa_flush(kv->pool, slot, sizeof *slot);
    }
    /* Before the tree names the block (else a crash shows a record without contents), and before the old block loses its
     * name in the tree (else nobody names it and it leaks). */
    pa_drain(kv->pool);
}

/** The shard's lock is held. */
static int put_locked(struct kv *kv, struct pm_kv_slot *slot, uint64_t key, const void *bytes, size_t length)
{
    pa_off old = 0;
    int r = fptree_find(kv->tree, key, &old);
    if (r < 0 && r != PA_ENOENT)
        return library_error();
    slot_clear(&slot->fresh);                                                         /* P1 */
    if (pa_allocate(kv->pool, &slot->fresh, sizeof(struct pm_kv_value) + length) < 0) /* P2 */
        return library_error();
    fill(kv, slot, key, bytes, length, old);                                  /* P3 */
    if (fptree_upsert(kv->tree, key, pa_off_of(kv->pool, slot->fresh)) < 0) { /* P4 */
        library_error();
        slot_clear(&slot->stale); /* durable with the free below, which flushes the same line */
        pa_flush(kv->pool, slot, sizeof *slot);
        pa_deallocate(kv->pool, &slot->fresh);
        return KV_ERROR;
    }
    if (old != 0 && pa_deallocate(kv->pool, &slot->stale) < 0) /* P5 */
        return library_error();
    return KV_OK;
}

int kv_put(struct kv *kv, uint64_t key, const void *value, size_t length)
{
    if (length > KV_VALUE_MAX)
        return error("the value is longer than KV_VALUE_MAX");
    unsigned shard = shard_of(key);
    pthread_mutex_lock(&kv->shards[shard].lock);
    int r = put_locked(kv, &kv->root->slots[shard], key, value, length);
    pthread_mutex_unlock(&kv->shards[shard].lock);
    return r;
}

int kv_get(struct kv *kv, uint64_t key, void *buffer, size_t *ret_length)
{
    unsigned shard = shard_of(key);
    uint64_t off;
    pthread_mutex_lock(&kv->shards[shard].lock); /* holds off the free of the block that is being copied */
    int r = fptree_find(kv->tree, key, &off);
    if (r == 0) {
        const struct pm_kv_value *value = pa_off_direct(kv->pool, off);
        if (value != NULL && value->length <= KV_VALUE_MAX) {
            memcpy(buffer, value->bytes, value->length);
            *ret_length = value->length;
        } else {
            r = error("a record's block is damaged");
        }
    } else {
        r = r == PA_ENOENT ? KV_NOT_FOUND : library_error();
    }
    pthread_mutex_unlock(&kv->shards[shard].lock);
    return r;
}

/** The shard's lock is held. */
static int delete_locked(struct kv *kv, struct pm_kv_slot *slot, uint64_t key)
{
    pa_off old;
    int r = fptree_find(kv->tree, key, &old);
    if (r < 0)
        return r == PA_ENOENT ? KV_NOT_FOUND : library_error();
    slot_clear(&slot->fresh); /* D1 */
    slot_set(&slot->stale, pa_off_pptr(kv->pool, old));
    /* Before the key goes: else nobody names the block, and it leaks; before the block is free: else fresh might name it. */
    pa_persist(kv->pool, slot, sizeof *slot);
    if (fptree_remove(kv->tree, key) < 0) { /* D2 */
        library_error();
        slot_clear(&slot->stale);
        pa_persist(kv->pool, slot, sizeof *slot);
        return KV_ERROR;
    }
    if (pa_deallocate(kv->pool, &slot->stale) < 0) /* D3 */
        return library_error();
    return KV_OK;
}

int kv_delete(struct kv *kv, uint64_t key)
{
    unsigned shard = shard_of(key);
    pthread_mutex_lock(&kv->shards[shard].lock);
    int r = delete_locked(kv, &kv->root->slots[shard], key);
    pthread_mutex_unlock(&kv->shards[shard].lock);
    return r;
}

struct scan {
    kv_visit_fn visit;
    void *arg;
};

static int visit_key(uint64_t key, uint64_t value, void *arg)
{
    (void)value;
    const struct scan *scan = arg;
    return scan->visit(key, scan->arg);
}

int kv_scan(struct kv *kv, kv_visit_fn visit, void *arg)
{
    struct scan scan = {visit, arg};
    return fptree_scan(kv->tree, 0, visit_key, &scan);
}

struct audit {
    struct kv *kv;
    struct kv_audit sum;
};

static bool is_sound(const struct kv *kv, const struct pm_kv_value *value, size_t usable)
{
    (void)kv;
    return usable >= sizeof *value && value->length <= usable - sizeof *value &&
           value->checksum == checksum_of(value->key, value->bytes, value->length);
}

/* A tree leaf or the root passes for a value block only if 8 of its bytes happen to be a checksum. */
static int audit_block(pa_pptr block, size_t usable, void *arg)
{
    struct audit *audit = arg;
    const struct pm_kv_value *value = pa_direct(audit->kv->pool, block);
    bool named = false;
    if (!is_sound(audit->kv, value, usable)) {
        audit->sum.other_blocks++;
        return 0;
    }
    if (is_named(audit->kv, block, &named) != KV_OK)
        return KV_ERROR;
    audit->sum.named_blocks += named;
    audit->sum.unnamed += !named;
    if (named)
        audit->sum.live_bytes += sizeof *value + value->length;
    return 0;
}

static int audit_record(uint64_t key, uint64_t off, void *arg)
{
    struct audit *audit = arg;
    pa_pptr block = pa_off_pptr(audit->kv->pool, off);
    size_t usable = pa_usable_size(audit->kv->pool, block);
    const struct pm_kv_value *value = pa_direct(audit->kv->pool, block);
    audit->sum.records++;
    if (usable == 0 || value->key != key || !is_sound(audit->kv, value, usable))
        audit->sum.torn++;
    return 0;
}

int kv_audit(struct kv *kv, struct kv_audit *ret)
{
    struct audit audit = {kv, {0, 0, 0, 0, 0, 0}};
    if (fptree_scan(kv->tree, 0, audit_record, &audit) != 0)
        return library_error();
    if (pa_foreach(kv->pool, audit_block, &audit) != 0)
        return library_error();
    *ret = audit.sum;
    return KV_OK;
}

int kv_stats(struct kv *kv, struct kv_stats *ret)
{
    pa_stats s;
    if (pa_get_stats(kv->pool, &s) < 0)
        return library_error();
    *ret = (struct kv_stats){s.fences, s.flushed_lines, s.resident_bytes};
    return KV_OK;
}
