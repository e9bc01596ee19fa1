/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree_layout.h -- the bytes of a tree on media.
 *
 * A tree is one header block and a list of leaves in key order; the first leaf (the head) is part of the header block and
 * stays there for the tree's life. Offsets are pa_off: bytes from the space's base. All integers are little-endian.
 *
 * Any reliance on a line: a line arrives as a prefix of the stores made to it. So one leaf header line, one log line and the
 * constants line are each changed as one failure-atomic step by storing the deciding word last.
 */
#ifndef FPTREE_TREE_LAYOUT_H
#define FPTREE_TREE_LAYOUT_H

#include <pallocator.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"

#define TREE_LEAF_SLOTS   40u
#define TREE_LEAF_FULL    ((UINT64_C(1) << TREE_LEAF_SLOTS) - 1)
#define TREE_FP_WORDS     5u /* 40 fingerprints of one byte */
#define TREE_LOGS         26u
#define TREE_MAGIC        UINT64_C(0x3145455254504650) /* "PFPTREE1" */
#define TREE_VERSION      1u
#define TREE_HEADER_BYTES 2560u

struct pm_tree_entry {
    uint64_t key;   /* 0 */
    uint64_t value; /* 8: stored before key */
};
_Static_assert(sizeof(struct pm_tree_entry) == 16, "entry: an entry never straddles a line");

/*
 * A leaf: unsorted entries for the keys in (low, high], where high is the next leaf's low (none for the last one).
 * The head leaf has low 0 and also holds key 0, in slot 0 and nowhere else; no other key is ever in the head's slot 0.
 * So in every other slot of the tree key 0 means "nothing arrived here": an entry is valid if and only if its bit is set and
 * (its key is not 0, or it is the head's slot 0). Free slots hold key 0 whenever the leaf may take an insert.
 *
 * Owner: the tree. Lock: the version lock in `lsn` (SELF) or the caller's (LOG).
 */
struct pm_tree_leaf {
    uint64_t bitmap; /* 0: bit s: slot s is used; bits 40.. are 0 */
    uint64_t lsn;    /* 8: LOG: last log entry reflected. SELF: version lock of one open, else void */
    uint64_t next;   /* 16: pa_off of the leaf with the next higher keys; 0 = last */
    uint64_t fingerprint[TREE_FP_WORDS];         /* 24: byte s is slot s's fingerprint */
    struct pm_tree_entry entry[TREE_LEAF_SLOTS]; /* 64 */
    uint64_t low;                                /* 704: all keys are above it (but key 0 in the head); never changes */
    uint64_t check;                              /* 712: tree_leaf_check() */
    uint64_t reserved[6];                        /* 720 */
};
_Static_assert(sizeof(struct pm_tree_leaf) == 768, "leaf: 12 lines");
_Static_assert(offsetof(struct pm_tree_leaf, entry) == 64, "leaf: the header is exactly one line");
_Static_assert(offsetof(struct pm_tree_leaf, low) == 704, "leaf: low and check share the last line");

/** What a leaf operation in progress is. */
enum tree_log_op {
    TREE_LOG_SPLIT = 1, /* leaf left gave its upper keys to the new leaf right */
    TREE_LOG_MERGE = 2  /* leaf left takes what is in leaf right, which leaves the list */
};

/*
 * A micro-log, one line. owner is the owner pointer of a leaf that is not in the list.
 *
 * owner | left | state
 * null  | 0    | idle
 * leaf  | 0    | spare: a leaf that was allocated or unlinked and is in no list; freed at open
 * any   | leaf | decided: recovery redoes op (or undoes a split whose leaf.next does not name right yet)
 *
 * `left` is stored last when an operation begins and last when it ends, so it decides.
 */
struct pm_tree_log {
    pa_pptr owner;        /* 0 */
    uint64_t left;        /* 16: pa_off */
    uint64_t right;       /* 24: pa_off */
    uint64_t after;       /* 32: pa_off of right's successor; MERGE only */
    uint64_t op;          /* 40: enum tree_log_op */
    uint64_t reserved[2]; /* 48 */
};
_Static_assert(sizeof(struct pm_tree_log) == 64, "micro-log: one line");

/*
 * The header block. Its first line is all zero when the owner pointer first names it (the space's duty), constants afterwards
 * and for ever; magic is stored last.
 */
struct pm_tree_header {
    uint64_t magic;        /* 0 */
    uint64_t version;      /* 8: format */
    uint64_t self;         /* 16: pa_off of this block */
    uint64_t rule;         /* 24: enum tree_rule */
    uint64_t leaf_bytes;   /* 32 */
    uint64_t logs;         /* 40 */
    uint64_t reserved;     /* 48 */
    uint64_t checksum;     /* 56: tree_header_checksum() */
    uint64_t generation;   /* 64: number of opens, less what power failures took back; 0 = never finished one */
    uint64_t closed;       /* 72: generation that was closed last: if it is the last one, nothing is in a cache */
    uint64_t reserved1[6]; /* 80 */
    struct pm_tree_log log[TREE_LOGS]; /* 128 */
    struct pm_tree_leaf head;          /* 1792 */
};
_Static_assert(sizeof(struct pm_tree_header) == TREE_HEADER_BYTES, "header block");
_Static_assert(offsetof(struct pm_tree_header, generation) == 64, "header: the constants are one line");
_Static_assert(offsetof(struct pm_tree_header, head) % 64 == 0, "header: the head leaf starts a line");

static inline uint64_t tree_header_checksum(const struct pm_tree_header *h)
{
    uint64_t sum = TREE_MAGIC;
    sum = mix64(sum ^ h->version);
    sum = mix64(sum ^ h->self);
    sum = mix64(sum ^ h->rule);
    sum = mix64(sum ^ h->leaf_bytes);
    sum = mix64(sum ^ h->logs);
    return mix64(sum ^ h->reserved);
}

/** Ties a leaf to its place, its tree and its lower bound, so that a stray pointer is noticed. */
static inline uint64_t tree_leaf_check(pa_off leaf, pa_off header, uint64_t low)
{
    return mix64(mix64(leaf ^ TREE_MAGIC) ^ mix64(header) ^ low);
}

/** The fingerprint of a key. */
static inline uint8_t tree_fingerprint(uint64_t key)
{
    return (uint8_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

#endif
