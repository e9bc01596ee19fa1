/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fptree.h -- a persistent, concurrent ordered map on a pallocator pool.
 *
 * A hybrid SCM-DRAM B+-tree (Oukid et al., "FPTree: A Hybrid SCM-DRAM Persistent and Concurrent B-Tree for
 * Storage Class Memory", SIGMOD 2016): unsorted leaves with fingerprints in the pool, inner nodes in DRAM that
 * fptree_open rebuilds. Keys and values are 8 bytes. A change is durable and failure-atomic when the call returns.
 *
 * Threads may make any calls at once, but for open and close. Insertion, upsert, lookup and removal are linearizable: each takes
 * effect at one moment between its call and its return.
 */
#ifndef FPTREE_H
#define FPTREE_H

#include <pallocator.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fptree fptree;

/** Create a tree at *anchor (a null pa_pptr in the pool), or recover the one it names. One handle per tree at a time.
 *  PA_ECORRUPT if *anchor names something else. Release with fptree_close before pa_close. */
int fptree_open(pa_pool *pool, pa_pptr *anchor, fptree **ret);
/** Release the DRAM part. No other call may run or follow. NULL: no-op. */
int fptree_close(fptree *t);
/** Add a key; PA_EEXIST if it is there. One fence (key 0: two), leaf allocation and splits apart. PA_ENOSPC, PA_ENOMEM. */
int fptree_insert(fptree *t, uint64_t key, uint64_t value);
/** Add a key or change its value; the change alone takes one fence. */
int fptree_upsert(fptree *t, uint64_t key, uint64_t value);
/** PA_ENOENT if the key is not there. No fence, no store to media. */
int fptree_find(fptree *t, uint64_t key, uint64_t *ret_value);
/** PA_ENOENT if the key is not there. One fence; freeing an emptied leaf apart. Needs no space. */
int fptree_remove(fptree *t, uint64_t key);
typedef int (*fptree_visit_fn)(uint64_t key, uint64_t value, void *arg);
/** Visit pairs with key >= from in ascending order, no key twice; visit's non-zero value stops the scan and is returned. The scan
 *  is no one instant. What it shows of a key, a value or that it is not there, was so at some moment after the scan began and
 *  before the visit of that key or, if it is not there, of the next one (the scan's end, if there is none); these moments
 *  do not go back from key to key. So a key that is there throughout is visited once, one that is never there is not. Keys
 *  that one leaf holds are seen at the same moment. visit runs without locks and may call the tree. */
int fptree_scan(fptree *t, uint64_t from, fptree_visit_fn visit, void *arg);

#ifdef __cplusplus
}
#endif
#endif
