/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree.h -- a persistent ordered map of 8-byte keys and values: unsorted leaves with fingerprints on media, inner nodes in
 * DRAM (Oukid et al., "FPTree", SIGMOD 2016).
 *
 * Glossary. Space: where leaves come from and what a persist is; given by the caller. Rule: who makes a change of one leaf
 * durable. Head: the first leaf, part of the header block. Spare: a leaf in no list, owned by a micro-log. Generation: the
 * number of this open; what a lock word of another generation says is void.
 *
 * Invariants (tree_check verifies them; the crash explorer does after every crash state):
 *  1. The list from the head has strictly ascending lows; every valid entry's key is in its leaf's (low, high].
 *  2. The keys of valid entries are distinct, and each entry's fingerprint byte is its key's.
 *  3. Every allocated leaf is in the list or owned by exactly one micro-log.
 *  4. A leaf that this open has locked once holds key 0 in its free slots and no torn entry.
 *  5. The inner nodes lead every key to the leaf whose range holds it.
 */
#ifndef FPTREE_TREE_H
#define FPTREE_TREE_H

#include <pallocator.h>
#include <stdbool.h>

#include "fptree/tree_layout.h"
#include "pmem/media.h"

/** Who makes a change of one leaf durable. Splits and merges always write back what they need. */
enum tree_rule {
    TREE_RULE_SELF = 1, /* the tree: tree_insert and its like; any number of threads */
    TREE_RULE_LOG = 2   /* the caller's log: tree_prepare and tree_redo, all calls under the caller's lock */
};

/** Where a tree lives. Copied by tree_open. */
struct tree_space {
    void *context;
    char *base; /* address of pa_off 0 */
    const struct media *media;
    /** Allocate a leaf (contents undefined, line-aligned, bytes = sizeof(struct pm_tree_leaf)) into *owner, failure-atomically and
     *  durably. PA_ENOSPC and its like leave *owner null. */
    int (*allocate)(void *context, pa_pptr *owner, size_t bytes);
    /** Free *owner's leaf and null *owner, failure-atomically and durably. */
    int (*deallocate)(void *context, pa_pptr *owner);
    /** May [off, off + bytes) be read as a block of this space? Called with values from media. */
    bool (*is_valid)(void *context, pa_off off, size_t bytes);
    /** The owner form of an offset for which is_valid holds, and back for what allocate gave. */
    pa_pptr (*pptr_of)(void *context, pa_off off);
    pa_off (*off_of)(void *context, pa_pptr owner);
    /** Rule LOG: LSN of the newest entry in the caller's log; a leaf with a higher one is damaged. 0 = not known. */
    uint64_t newest_lsn;
    /** Add one operation's fences and lines to the owner's counters. May be NULL. */
    void (*count)(void *context, const struct media_tally *tally);
};

struct tree;

/** Open the tree whose header block is at off: format it if its first two lines are all zero, else recover it. The block is
 *  TREE_HEADER_BYTES long and line-aligned; no other handle is open on it. PA_ECORRUPT, PA_EVERSION, PA_ENOMEM. */
int tree_open(const struct tree_space *space, pa_off off, enum tree_rule rule, struct tree **ret_tree);
/** From now on the space's functions get another context. */
void tree_move(struct tree *t, void *context);
/** Give spare leaves back and release the DRAM part. No other call may run. NULL: no-op. */
void tree_close(struct tree *t);
/** What the caller gave as space.context. */
void *tree_space_context(const struct tree *t);

/* Rule SELF: durable when the call returns. Errors as in fptree.h. */
int tree_insert(struct tree *t, uint64_t key, uint64_t value);
int tree_upsert(struct tree *t, uint64_t key, uint64_t value);
int tree_remove(struct tree *t, uint64_t key);

/* Both rules. */
int tree_find(const struct tree *t, uint64_t key, uint64_t *ret_value);
typedef int (*tree_visit_fn)(uint64_t key, uint64_t value, void *arg);
int tree_scan(const struct tree *t, uint64_t from, tree_visit_fn visit, void *arg);

/*
 * Rule LOG. A change of the map is prepared, logged by the caller, then redone in place; recovery calls the same tree_redo on
 * the leaves before it opens the tree. An update takes a new slot, so both halves are one bitmap store.
 */
#define TREE_NO_SLOT UINT8_MAX
struct tree_change {
    uint64_t key, value;
    pa_off leaf;        /* its header line is the one line that tree_redo changes and does not write back */
    uint8_t set, clear; /* slots; TREE_NO_SLOT = none */
};
/** Choose leaf and slots for n changes (key and value filled in; remove[i] = take key i out), splitting leaves as needed, and
 *  start writing the new entries back to their free slots. They are durable at the caller's next fence, which must come before
 *  or with the log entry's. Nothing is visible yet. lsn: of the caller's newest entry, all of whose changes are redone.
 *  PA_ENOENT for a key to remove that is not there, PA_ENOSPC. The keys differ and are not 0; n <= TREE_CHANGES_MAX. */
#define TREE_CHANGES_MAX 8u
int tree_prepare(struct tree *t, struct tree_change *changes, const bool *remove, size_t n, uint64_t lsn,
                 struct media_tally *tally);
/** Recovery, before tree_redo: fill the slots of leaves that are older than lsn with the changes' keys and values; durable on
 *  return. */
void tree_refill(const struct media *m, struct media_tally *t, char *base, const struct tree_change *changes, size_t n,
                 uint64_t lsn);
/** Make the n changes of log entry lsn in place. Idempotent: leaves that reflect lsn are left alone. The header
 *  lines are not written back: the caller does that before it drops the entry. */
void tree_redo(const struct media *m, char *base, const struct tree_change *changes, size_t n, uint64_t lsn);
/** Take the leaf that holds key out of the tree if it is empty, or merge it with its left neighbour if both are sparse. */
void tree_trim(struct tree *t, uint64_t key, uint64_t lsn);

struct tree_counts {
    uint64_t entries, leaves, spares, inner_nodes, height, dram_bytes;
};
/** Walk the whole tree, changing nothing, and verify the invariants. No other call may run. PA_ECORRUPT names the first
 *  finding. ret_counts may be NULL. */
int tree_check(const struct tree *t, struct tree_counts *ret_counts);
/** Call visit for every leaf in the list but the head. No other call may run. */
int tree_foreach_leaf(const struct tree *t, int (*visit)(pa_off leaf, void *arg), void *arg);
/** Call visit for every block of the tree but the header block. No other call may run. */
int tree_foreach_block(const struct tree *t, int (*visit)(pa_off block, void *arg), void *arg);

#endif
