/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv.h -- a small storage engine: an ordered map from a 64-bit key to a byte string, both persistent.
 *
 * Two programs implement this interface step by step alike, so that they can be measured side by side:
 *   kv.c          on libpallocator (FPTree from key to value block; this is the one to read)
 *   kv_pmemobj.c  on libpmemobj
 *
 * A put or delete is durable and all-or-nothing when it returns. kv_put, kv_get, kv_delete and kv_scan may be called from any
 * number of threads, on the same keys too; the others need the store for themselves.
 */
#ifndef EXAMPLES_KV_H
#define EXAMPLES_KV_H

#include <stddef.h>
#include <stdint.h>

#define KV_VALUE_MAX 4096u /* bytes in a value */
#define KV_SHARDS    128u  /* locks, and pending slots, of a store */

enum kv_result {
    KV_OK = 0,
    KV_NOT_FOUND = 1,
    KV_ERROR = -1 /* kv_errormsg() says what */
};

struct kv_options {
    uint64_t capacity_bytes; /* create: how much the values may come to; a library with pools of fixed size uses it */
    const char *variant;     /* NULL, or one that the implementation names in kv_variants */
};

/** What open had to clean up. */
struct kv_recovery {
    uint64_t kept;  /* pending blocks that the index named */
    uint64_t freed; /* pending blocks that it did not */
};

/** A look at every block. Nothing is lost or leaked if named == records and unnamed == torn == 0. */
struct kv_audit {
    uint64_t records;      /* keys in the index */
    uint64_t named_blocks; /* value blocks that the index names, with the right checksum */
    uint64_t unnamed;      /* value blocks that it does not name: leaked */
    uint64_t torn;         /* keys whose block is not there or has another checksum: lost */
    uint64_t other_blocks; /* root and index */
    uint64_t live_bytes;   /* what the named blocks were asked for */
};

struct kv_stats {
    uint64_t fences, lines; /* since open */
    uint64_t held_bytes;    /* what the file system has given to the store's files */
};

struct kv;

extern const char *const kv_engine;   /* the library's name */
extern const char *const kv_variants; /* for --help */

/** Make an empty store in the existing directory dir and open it. options may be NULL. */
int kv_create(const char *dir, const struct kv_options *options, struct kv **ret);
/** Open the store in dir, resolving what a crash left pending; ret_recovery may be NULL. */
int kv_open(const char *dir, const struct kv_options *options, struct kv **ret, struct kv_recovery *ret_recovery);
int kv_close(struct kv *kv);
/** Add a key or replace its value. */
int kv_put(struct kv *kv, uint64_t key, const void *value, size_t length);
/** Copy a value out; buffer holds KV_VALUE_MAX bytes. KV_NOT_FOUND. */
int kv_get(struct kv *kv, uint64_t key, void *buffer, size_t *ret_length);
/** KV_NOT_FOUND. */
int kv_delete(struct kv *kv, uint64_t key);
/** Visit all keys in ascending order; a non-zero value of visit stops and is returned. */
typedef int (*kv_visit_fn)(uint64_t key, void *arg);
int kv_scan(struct kv *kv, kv_visit_fn visit, void *arg);
int kv_audit(struct kv *kv, struct kv_audit *ret);
int kv_stats(struct kv *kv, struct kv_stats *ret);
/** The calling thread's last failure as a sentence. */
const char *kv_errormsg(void);

#endif
