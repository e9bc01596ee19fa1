/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ledger.h -- a pool that knows what it must hold: the judge of power cuts.
 *
 * The root names a table of owner pointers, a tree, and a book. The book has a line per thread with the operation that the thread
 * began and the number of the last one that it finished, and for every owner and key what finished operations left there. Each
 * step is persisted before the next:
 *
 *   begin | the operation's arguments and its number | a cut: it did not happen
 *   act   | the library's call, the block's contents  | a cut: it happened, or not, as a whole
 *   note  | what the owner or key holds now           | a cut: it happened
 *   end   | the finished number                       |
 *
 * After a cut every owner and key must be as the book says; only what the operations in flight name may be as before or after.
 */
#ifndef TESTS_DAXVM_LEDGER_H
#define TESTS_DAXVM_LEDGER_H

#include <fptree.h>
#include <pallocator.h>
#include <stdbool.h>
#include <stdint.h>

#define LEDGER_THREADS 3u
#define LEDGER_OWNERS  240u /* per thread */
#define LEDGER_KEYS    200u /* per thread */

enum ledger_kind { LEDGER_ALLOCATE = 1, LEDGER_FREE, LEDGER_RESIZE, LEDGER_PUT, LEDGER_REMOVE };

/* On media: one line per thread. */
struct pm_intent {
    uint64_t begun, done; /* operation numbers; in flight if begun is one more */
    uint64_t kind, which; /* which: owner or key, over all threads */
    uint64_t size, tag;   /* tag: what a block is filled with, or a key's value */
    uint64_t unused[2];
};

/* On media: what an owner names; size 0 = nothing. */
struct pm_expected {
    uint64_t tag, size;
};

struct pm_book {
    struct pm_intent intents[LEDGER_THREADS];
    struct pm_expected blocks[LEDGER_THREADS * LEDGER_OWNERS];
    uint64_t values[LEDGER_THREADS * LEDGER_KEYS]; /* 0 = no such key */
};

struct ledger {
    pa_pool *pool;
    pa_pptr *owners;
    struct pm_book *book;
    fptree *tree;
    pa_pptr root;
};

/** Find the ledger in the pool. 1 if its making was cut off, else 0 or a negative enum pa_error. */
int ledger_open(struct ledger *l, pa_pool *pool);
/** Make the ledger in a new pool. */
int ledger_make(struct ledger *l, pa_pool *pool);
void ledger_close(struct ledger *l);

/** Begin, act, note and end. 0 (also for PA_ENOSPC, then nothing happened) or a negative enum pa_error. */
int ledger_do(struct ledger *l, unsigned thread, enum ledger_kind kind, uint64_t which, uint64_t size, uint64_t tag);

/** Judge everything: owners, contents, keys, blocks, statistics, files. True if all is as the book says; else *message says what
 *  is wrong. Ends the operations in flight in the state in which it finds them. */
bool ledger_verify(struct ledger *l, char *message, size_t size);

#endif
