/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv_pmemobj.c -- the storage engine of kv.h on libpmemobj, for comparison with kv.c.
 *
 * The same design in the same steps: value blocks {key, length, checksum, bytes} enter and leave through the fresh and stale
 * owners of 128 locked shards (kv.c has the step tables and the rule that resolves them after a crash), and an ordered
 * index of the same kind: unsorted leaves in persistent memory with fingerprints and a bitmap as commit word, what is above
 * the leaves in DRAM, rebuilt at open. Two simplifications, both in this program's favour: a shard takes a range of
 * keys instead of a hash, so the index is 128 small trees under the shards' locks and needs no concurrency of its own; and what
 * is above the leaves is one sorted array per shard.
 *
 * Variant "publish" leaves the slots out. It reserves the value block and publishes allocation, index commit and free of the old
 * block as one group, which is the fastest way that libpmemobj offers.
 *
 * Leaves are placed on line boundaries by hand, since libpmemobj puts 16 bytes before a block. A leaf is named by the pool offset
 * of its block; the leaf is at the next line boundary, which stays the same since pools are mapped at page boundaries.
 */
#include "examples/kv.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif
#include <libpmemobj.h>
#include <xxhash.h>

#include "examples/kv_count.h"

#define KV_LAYOUT    "example-kv"
#define LEAF_ENTRIES 48u
#define LEAF_FULL    ((UINT64_C(1) << LEAF_ENTRIES) - 1)

enum type { TYPE_VALUE = 1, TYPE_LEAF = 2 };

/** A value block; as in kv.c. */
struct pm_value {
    uint64_t key, length, checksum;
    char bytes[];
};

struct pm_entry {
    uint64_t key, value; /* value: pool offset of the block */
};

/** A leaf. `bitmap` commits an insert or remove by one 8-byte store. */
struct pm_leaf {
    uint64_t bitmap;                       /*  0 */
    uint64_t next;                         /*  8  block of the leaf with the next higher keys; 0 = last */
    uint8_t fingerprints[LEAF_ENTRIES];    /* 16 */
    struct pm_entry entries[LEAF_ENTRIES]; /* 64 */
};
_Static_assert(sizeof(struct pm_leaf) == 64 + LEAF_ENTRIES * 16, "header is one line");

/** A shard's persistent part, one line. An owner is null if its offset word is zero. */
struct pm_shard {
    PMEMoid fresh, stale;
    uint64_t first; /* block of the first leaf */
    uint64_t reserved[3];
};
_Static_assert(sizeof(struct pm_shard) == 64, "one line");

struct pm_root {
    struct pm_shard padding; /* shards start at the first line boundary inside */
    struct pm_shard shards[KV_SHARDS];
};

/** One leaf as the DRAM index knows it. */
struct leaf_ref {
    uint64_t low;   /* lowest key that belongs here */
    uint64_t block; /* pool offset of the leaf's block */
};

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct pm_shard *media;
    struct leaf_ref *leaves;
    size_t count, room;
};

struct kv {
    PMEMobjpool *pool;
    int fd; /* of the pool file, for its size in use */
    uint64_t uuid;
    bool publish;
    struct shard shards[KV_SHARDS];
};

const char *const kv_engine = "libpmemobj";
const char *const kv_variants = "publish";

const char *kv_errormsg(void)
{
    return pmemobj_errormsg();
}

static uint64_t checksum_of(uint64_t key, const void *bytes, size_t length)
{
    return XXH3_64bits_withSeed(bytes, length, key ^ (length << 48));
}

/* A shard takes a range of keys: together the shards are one ordered index. */
static struct shard *shard_of(struct kv *kv, uint64_t key)
{
    return &kv->shards[key >> 57];
}

static void *direct(const struct kv *kv, uint64_t offset)
{
    return (char *)kv->pool + offset;
}

#define LEAF_BLOCK_BYTES (sizeof(struct pm_leaf) + 64)

static struct pm_leaf *leaf_at(const struct kv *kv, uint64_t block)
{
    return (struct pm_leaf *)(((uintptr_t)direct(kv, block) + 63) & ~(uintptr_t)63);
}

static PMEMoid oid_of(const struct kv *kv, uint64_t offset)
{
    return (PMEMoid){kv->uuid, offset};
}

/* ---- index ---- */

/** Position of the leaf that key belongs to; the shard has leaves. */
static size_t find_leaf(const struct shard *shard, uint64_t key)
{
    size_t low = 0, high = shard->count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (shard->leaves[middle].low <= key)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static uint8_t fingerprint_of(uint64_t key)
{
    return (uint8_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

static uint64_t matches(const struct pm_leaf *leaf, uint8_t fingerprint)
{
    uint64_t mask = 0;
#if defined(__x86_64__)
    for (unsigned i = 0; i < LEAF_ENTRIES; i += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(leaf->fingerprints + i));
        mask |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)fingerprint))) << i;
    }
#else
    for (unsigned i = 0; i < LEAF_ENTRIES; i++)
        mask |= (uint64_t)(leaf->fingerprints[i] == fingerprint) << i;
#endif
    return mask & leaf->bitmap;
}

static int find_entry(const struct pm_leaf *leaf, uint64_t key)
{
    for (uint64_t mask = matches(leaf, fingerprint_of(key)); mask != 0; mask &= mask - 1)
        if (leaf->entries[__builtin_ctzll(mask)].key == key)
            return __builtin_ctzll(mask);
    return -1;
}

/** The leaf and entry of a key; NULL if it is not there. */
static struct pm_entry *find(struct kv *kv, struct shard *shard, uint64_t key, struct pm_leaf **ret_leaf)
{
    if (shard->count == 0)
        return NULL;
    struct pm_leaf *leaf = leaf_at(kv, shard->leaves[find_leaf(shard, key)].block);
    int i = find_entry(leaf, key);
    if (ret_leaf != NULL)
        *ret_leaf = leaf;
    return i < 0 ? NULL : &leaf->entries[i];
}

/** Put a leaf into the DRAM array at position. */
static int array_insert(struct shard *shard, size_t position, uint64_t low, uint64_t block)
{
    if (shard->count == shard->room) {
        size_t room = shard->room ? 2 * shard->room : 64;
        struct leaf_ref *leaves = realloc(shard->leaves, room * sizeof *leaves);
        if (leaves == NULL)
            return KV_ERROR;
        shard->leaves = leaves;
        shard->room = room;
    }
    memmove(shard->leaves + position + 1, shard->leaves + position, (shard->count - position) * sizeof *shard->leaves);
    shard->leaves[position] = (struct leaf_ref){low, block};
    shard->count++;
    return KV_OK;
}

static int add_first_leaf(struct kv *kv, struct shard *shard)
{
    struct pobj_action acts[2];
    PMEMoid oid = pmemobj_reserve(kv->pool, &acts[0], LEAF_BLOCK_BYTES, TYPE_LEAF);
    if (OID_IS_NULL(oid) || array_insert(shard, 0, 0, oid.off) != KV_OK)
        return KV_ERROR;
    pmemobj_memset_persist(kv->pool, leaf_at(kv, oid.off), 0, 64);
    pmemobj_set_value(kv->pool, &acts[1], &shard->media->first, oid.off);
    return pmemobj_publish(kv->pool, acts, 2) == 0 ? KV_OK : KV_ERROR;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/** Copy the entries with key >= low of a full leaf to a fresh one; returns the bits that stay. */
static uint64_t copy_upper_half(const struct pm_leaf *leaf, struct pm_leaf *fresh, uint64_t low)
{
    uint64_t stay = 0;
    unsigned n = 0;
    for (unsigned i = 0; i < LEAF_ENTRIES; i++) {
        if (leaf->entries[i].key < low) {
            stay |= UINT64_C(1) << i;
            continue;
        }
        fresh->entries[n] = leaf->entries[i];
        fresh->fingerprints[n++] = leaf->fingerprints[i];
    }
    fresh->bitmap = (UINT64_C(1) << n) - 1;
    fresh->next = leaf->next;
    return stay;
}

/** Split the full leaf at position: the fresh leaf is filled first, then linked and cut over in one published group. */
static int split(struct kv *kv, struct shard *shard, size_t position)
{
    struct pm_leaf *leaf = leaf_at(kv, shard->leaves[position].block);
    uint64_t keys[LEAF_ENTRIES];
    for (unsigned i = 0; i < LEAF_ENTRIES; i++)
        keys[i] = leaf->entries[i].key;
    qsort(keys, LEAF_ENTRIES, sizeof *keys, compare_keys);
    uint64_t low = keys[LEAF_ENTRIES / 2];

    struct pobj_action acts[3];
    PMEMoid oid = pmemobj_reserve(kv->pool, &acts[0], LEAF_BLOCK_BYTES, TYPE_LEAF);
    if (OID_IS_NULL(oid) || array_insert(shard, position + 1, low, oid.off) != KV_OK)
        return KV_ERROR;
    struct pm_leaf *fresh = leaf_at(kv, oid.off);
    uint64_t stay = copy_upper_half(leaf, fresh, low);
    pmemobj_persist(kv->pool, fresh, sizeof *fresh);
    pmemobj_set_value(kv->pool, &acts[1], &leaf->next, oid.off);
    pmemobj_set_value(kv->pool, &acts[2], &leaf->bitmap, stay);
    return pmemobj_publish(kv->pool, acts, 3) == 0 ? KV_OK : KV_ERROR;
}

/** The leaf for a key that is not there, with room in it. */
static struct pm_leaf *make_room(struct kv *kv, struct shard *shard, uint64_t key)
{
    if (shard->count == 0 && add_first_leaf(kv, shard) != KV_OK)
        return NULL;
    size_t position = find_leaf(shard, key);
    struct pm_leaf *leaf = leaf_at(kv, shard->leaves[position].block);
    if (leaf->bitmap != LEAF_FULL)
        return leaf;
    if (split(kv, shard, position) != KV_OK)
        return NULL;
    return leaf_at(kv, shard->leaves[find_leaf(shard, key)].block);
}

/** Write an entry that no bit shows yet, and start writing it back; returns the bit that will show it. */
static uint64_t write_entry(struct kv *kv, struct pm_leaf *leaf, uint64_t key, uint64_t value)
{
    unsigned i = (unsigned)__builtin_ctzll(~leaf->bitmap);
    leaf->entries[i] = (struct pm_entry){key, value};
    leaf->fingerprints[i] = fingerprint_of(key);
    pmemobj_flush(kv->pool, &leaf->entries[i], sizeof leaf->entries[i]);
    pmemobj_flush(kv->pool, &leaf->fingerprints[i], 1);
    return UINT64_C(1) << i;
}

static void commit64(struct kv *kv, uint64_t *address, uint64_t value)
{
    __atomic_store_n(address, value, __ATOMIC_RELEASE);
    pmemobj_persist(kv->pool, address, sizeof *address);
}

/** Unlink and free an emptied leaf, as one group. The first leaf of a shard stays. */
static int drop_leaf(struct kv *kv, uint64_t *link, uint64_t block)
{
    struct pobj_action acts[2];
    pmemobj_defer_free(kv->pool, oid_of(kv, block), &acts[0]);
    pmemobj_set_value(kv->pool, &acts[1], link, leaf_at(kv, block)->next);
    return pmemobj_publish(kv->pool, acts, 2) == 0 ? KV_OK : KV_ERROR;
}

static int drop_if_empty(struct kv *kv, struct shard *shard, uint64_t key)
{
    size_t position = find_leaf(shard, key);
    uint64_t block = shard->leaves[position].block;
    if (position == 0 || leaf_at(kv, block)->bitmap != 0)
        return KV_OK;
    if (drop_leaf(kv, &leaf_at(kv, shard->leaves[position - 1].block)->next, block) != KV_OK)
        return KV_ERROR;
    shard->count--;
    memmove(shard->leaves + position, shard->leaves + position + 1, (shard->count - position) * sizeof *shard->leaves);
    return KV_OK;
}

/* ---- records ---- */

struct content {
    uint64_t key;
    const void *bytes;
    size_t length;
};

/** libpmemobj's constructor: runs before the block is published. Its last write-back is fenced with the block's header. */
static int fill(PMEMobjpool *pool, void *block, void *arg)
{
    const struct content *content = arg;
    struct pm_value *value = block;
    value->key = content->key;
    value->length = content->length;
    value->checksum = checksum_of(content->key, content->bytes, content->length);
    memcpy(value->bytes, content->bytes, content->length);
    pmemobj_flush(pool, value, sizeof *value + content->length);
    return 0;
}

static void announce_stale(struct kv *kv, struct pm_shard *media, uint64_t block)
{
    media->stale.pool_uuid_lo = kv->uuid;
    commit64(kv, &media->stale.off, block);
}

/** kv.c's steps P1 to P5; P3's contents are written by the constructor inside P2, one fence less. */
static int put_steps(struct kv *kv, struct shard *shard, struct content *content)
{
    struct pm_shard *media = shard->media;
    struct pm_entry *entry = find(kv, shard, content->key, NULL);
    struct pm_leaf *leaf = entry == NULL ? make_room(kv, shard, content->key) : NULL;
    if (entry == NULL && leaf == NULL)
        return KV_ERROR;
    size_t size = sizeof(struct pm_value) + content->length;
    if (pmemobj_alloc(kv->pool, &media->fresh, size, TYPE_VALUE, fill, content) != 0)
        return KV_ERROR;
    if (entry == NULL) {
        uint64_t bit = write_entry(kv, leaf, content->key, media->fresh.off);
        pmemobj_drain(kv->pool);
        commit64(kv, &leaf->bitmap, leaf->bitmap | bit);
        return KV_OK;
    }
    announce_stale(kv, media, entry->value);
    commit64(kv, &entry->value, media->fresh.off);
    pmemobj_free(&media->stale);
    return KV_OK;
}

/** Everything as one published group. */
static int put_publish(struct kv *kv, struct shard *shard, struct content *content)
{
    struct pm_entry *entry = find(kv, shard, content->key, NULL);
    struct pm_leaf *leaf = entry == NULL ? make_room(kv, shard, content->key) : NULL;
    if (entry == NULL && leaf == NULL)
        return KV_ERROR;
    struct pobj_action acts[3];
    size_t n = 0, size = sizeof(struct pm_value) + content->length;
    PMEMoid oid = pmemobj_reserve(kv->pool, &acts[n++], size, TYPE_VALUE);
    if (OID_IS_NULL(oid))
        return KV_ERROR;
    fill(kv->pool, direct(kv, oid.off), content);
    if (entry == NULL) {
        uint64_t bit = write_entry(kv, leaf, content->key, oid.off);
        pmemobj_set_value(kv->pool, &acts[n++], &leaf->bitmap, leaf->bitmap | bit);
    } else {
        pmemobj_defer_free(kv->pool, oid_of(kv, entry->value), &acts[n++]);
        pmemobj_set_value(kv->pool, &acts[n++], &entry->value, oid.off);
    }
    pmemobj_drain(kv->pool); /* contents and entry before the group that shows them */
    return pmemobj_publish(kv->pool, acts, n) == 0 ? KV_OK : KV_ERROR;
}

int kv_put(struct kv *kv, uint64_t key, const void *value, size_t length)
{
    if (length > KV_VALUE_MAX)
        return KV_ERROR;
    struct content content = {key, value, length};
    struct shard *shard = shard_of(kv, key);
    pthread_mutex_lock(&shard->lock);
    int r = kv->publish ? put_publish(kv, shard, &content) : put_steps(kv, shard, &content);
    pthread_mutex_unlock(&shard->lock);
    return r;
}

int kv_get(struct kv *kv, uint64_t key, void *buffer, size_t *ret_length)
{
    struct shard *shard = shard_of(kv, key);
    int r = KV_NOT_FOUND;
    pthread_mutex_lock(&shard->lock);
    struct pm_entry *entry = find(kv, shard, key, NULL);
    if (entry != NULL) {
        const struct pm_value *value = direct(kv, entry->value);
        memcpy(buffer, value->bytes, value->length);
        *ret_length = value->length;
        r = KV_OK;
    }
    pthread_mutex_unlock(&shard->lock);
    return r;
}

static int delete_locked(struct kv *kv, struct shard *shard, uint64_t key)
{
    struct pm_leaf *leaf;
    struct pm_entry *entry = find(kv, shard, key, &leaf);
    if (entry == NULL)
        return KV_NOT_FOUND;
    uint64_t stay = leaf->bitmap & ~(UINT64_C(1) << (entry - leaf->entries));
    if (kv->publish) {
        struct pobj_action acts[2];
        pmemobj_defer_free(kv->pool, oid_of(kv, entry->value), &acts[0]);
        pmemobj_set_value(kv->pool, &acts[1], &leaf->bitmap, stay);
        if (pmemobj_publish(kv->pool, acts, 2) != 0)
            return KV_ERROR;
    } else {
        shard->media->fresh.off = 0; /* same line as stale, before it: D1 */
        announce_stale(kv, shard->media, entry->value);
        commit64(kv, &leaf->bitmap, stay);
        pmemobj_free(&shard->media->stale);
    }
    return drop_if_empty(kv, shard, key);
}

int kv_delete(struct kv *kv, uint64_t key)
{
    struct shard *shard = shard_of(kv, key);
    pthread_mutex_lock(&shard->lock);
    int r = delete_locked(kv, shard, key);
    pthread_mutex_unlock(&shard->lock);
    return r;
}

/* ---- open and close ---- */

/** Fill a shard's array from its chain of leaves, dropping leaves that a crash left empty. */
static int rebuild(struct kv *kv, struct shard *shard)
{
    uint64_t *link = &shard->media->first;
    while (*link != 0) {
        struct pm_leaf *leaf = leaf_at(kv, *link);
        uint64_t low = UINT64_MAX;
        if (leaf->bitmap == 0 && shard->count > 0) {
            if (drop_leaf(kv, link, *link) != KV_OK)
                return KV_ERROR;
            continue;
        }
        for (uint64_t mask = leaf->bitmap; mask != 0; mask &= mask - 1)
            if (leaf->entries[__builtin_ctzll(mask)].key < low)
                low = leaf->entries[__builtin_ctzll(mask)].key;
        if (array_insert(shard, shard->count, shard->count == 0 ? 0 : low, *link) != KV_OK)
            return KV_ERROR;
        link = &leaf->next;
    }
    return KV_OK;
}

static void resolve(struct kv *kv, PMEMoid *pending, struct kv_recovery *recovery)
{
    if (pending->off == 0)
        return;
    const struct pm_value *value = direct(kv, pending->off);
    struct pm_entry *entry = find(kv, shard_of(kv, value->key), value->key, NULL);
    if (entry != NULL && entry->value == pending->off) {
        commit64(kv, &pending->off, 0);
        recovery->kept++;
    } else {
        pmemobj_free(pending);
        recovery->freed++;
    }
}

static void release(struct kv *kv)
{
    for (unsigned i = 0; i < KV_SHARDS; i++) {
        free(kv->shards[i].leaves);
        pthread_mutex_destroy(&kv->shards[i].lock);
    }
    if (kv->fd >= 0)
        close(kv->fd);
    pmemobj_close(kv->pool);
    free(kv);
}

static int attach(PMEMobjpool *pool, int fd, const struct kv_options *options, struct kv **ret,
                  struct kv_recovery *recovery)
{
    struct kv *kv = aligned_alloc(_Alignof(struct kv), sizeof *kv);
    if (kv == NULL)
        return KV_ERROR;
    memset(kv, 0, sizeof *kv);
    kv->pool = pool;
    kv->fd = fd;
    kv->publish = options != NULL && options->variant != NULL && strcmp(options->variant, "publish") == 0;
    PMEMoid root = pmemobj_root(pool, sizeof(struct pm_root));
    int r = OID_IS_NULL(root) ? KV_ERROR : KV_OK;
    kv->uuid = root.pool_uuid_lo;
    struct pm_shard *media = (struct pm_shard *)(((uintptr_t)direct(kv, root.off) + 63) & ~(uintptr_t)63);
    for (unsigned i = 0; i < KV_SHARDS; i++) {
        pthread_mutex_init(&kv->shards[i].lock, NULL);
        kv->shards[i].media = &media[i];
        if (r == KV_OK)
            r = rebuild(kv, &kv->shards[i]);
    }
    for (unsigned i = 0; r == KV_OK && i < KV_SHARDS; i++) {
        resolve(kv, &media[i].fresh, recovery);
        resolve(kv, &media[i].stale, recovery);
    }
    if (r == KV_OK)
        *ret = kv;
    else
        release(kv);
    return r;
}

static void pool_path(char *path, size_t size, const char *dir)
{
    snprintf(path, size, "%s/kv.pmemobj", dir);
}

int kv_create(const char *dir, const struct kv_options *options, struct kv **ret)
{
    char path[4096];
    pool_path(path, sizeof path, dir);
    /* A sparse file, so that held bytes are pages in use. */
    uint64_t size = (options != NULL ? options->capacity_bytes : 0) * 8 + (UINT64_C(1) << 30);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return KV_ERROR;
    PMEMobjpool *pool = pmemobj_create(path, KV_LAYOUT, 0, 0600);
    struct kv_recovery none = {0, 0};
    return pool == NULL ? KV_ERROR : attach(pool, fd, options, ret, &none);
}

int kv_open(const char *dir, const struct kv_options *options, struct kv **ret, struct kv_recovery *ret_recovery)
{
    char path[4096];
    pool_path(path, sizeof path, dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    PMEMobjpool *pool = fd < 0 ? NULL : pmemobj_open(path, KV_LAYOUT);
    struct kv_recovery recovery = {0, 0};
    int r = pool == NULL ? KV_ERROR : attach(pool, fd, options, ret, &recovery);
    if (r == KV_OK && ret_recovery != NULL)
        *ret_recovery = recovery;
    return r;
}

int kv_close(struct kv *kv)
{
    if (kv != NULL)
        release(kv);
    return KV_OK;
}

/* ---- walks ---- */

static int visit_leaf(const struct pm_leaf *leaf, kv_visit_fn visit, void *arg)
{
    uint64_t keys[LEAF_ENTRIES];
    size_t n = 0;
    for (uint64_t mask = leaf->bitmap; mask != 0; mask &= mask - 1)
        keys[n++] = leaf->entries[__builtin_ctzll(mask)].key;
    qsort(keys, n, sizeof *keys, compare_keys);
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = visit(keys[i], arg);
    return r;
}

int kv_scan(struct kv *kv, kv_visit_fn visit, void *arg)
{
    int r = 0;
    for (unsigned s = 0; r == 0 && s < KV_SHARDS; s++)
        for (size_t i = 0; r == 0 && i < kv->shards[s].count; i++)
            r = visit_leaf(leaf_at(kv, kv->shards[s].leaves[i].block), visit, arg);
    return r;
}

static bool is_sound(const struct pm_value *value, size_t usable)
{
    return usable >= sizeof *value && value->length <= usable - sizeof *value &&
           value->checksum == checksum_of(value->key, value->bytes, value->length);
}

struct audit {
    struct kv *kv;
    struct kv_audit sum;
};

static int audit_record(uint64_t key, void *arg)
{
    struct audit *audit = arg;
    struct pm_entry *entry = find(audit->kv, shard_of(audit->kv, key), key, NULL);
    const struct pm_value *value = direct(audit->kv, entry->value);
    audit->sum.records++;
    if (value->key != key || !is_sound(value, pmemobj_alloc_usable_size(oid_of(audit->kv, entry->value))))
        audit->sum.torn++;
    return 0;
}

int kv_audit(struct kv *kv, struct kv_audit *ret)
{
    struct audit audit = {kv, {0, 0, 0, 0, 0, 0}};
    PMEMoid oid;
    kv_scan(kv, audit_record, &audit);
    POBJ_FOREACH(kv->pool, oid)
    {
        const struct pm_value *value = direct(kv, oid.off);
        if (pmemobj_type_num(oid) != TYPE_VALUE) {
            audit.sum.other_blocks++;
            continue;
        }
        struct pm_entry *entry = find(kv, shard_of(kv, value->key), value->key, NULL);
        bool named = entry != NULL && entry->value == oid.off;
        audit.sum.named_blocks += named;
        audit.sum.unnamed += !named;
        if (named)
            audit.sum.live_bytes += sizeof *value + value->length;
    }
    *ret = audit.sum;
    return KV_OK;
}

int kv_stats(struct kv *kv, struct kv_stats *ret)
{
    struct stat st;
    if (fstat(kv->fd, &st) < 0)
        return KV_ERROR;
    kv_count(&ret->fences, &ret->lines);
    ret->held_bytes = (uint64_t)st.st_blocks * 512;
    return KV_OK;
}
