/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * world.h -- a pool, what it must hold, and the judgement after a failure: the model is changed by each call that succeeds and by
 * none that fails, so comparing the two shows what a failed call left behind.
 */
#ifndef TESTS_FAULT_WORLD_H
#define TESTS_FAULT_WORLD_H

#include "pool/pool_fptree.h"
#include "tests/support/owners.h"
#include "tests/support/temp.h"

#define WORLD_OWNERS 512u
#define WORLD_ANCHOR 511u /* the owner that is a tree's anchor */

/* Ranges of owners in the prepared pool. */
enum {
    WORLD_SMALL = 0,  /* 60 of 7,000 bytes, every third null */
    WORLD_TINY = 60,  /* 40 of 100 bytes */
    WORLD_BIG = 100,  /* 6 of 100 KiB, the fourth null */
    WORLD_HUGE = 106, /* 1 of 1.5 MiB */
    WORLD_NEW = 110,  /* null */
    WORLD_BIG_BYTES = 100 << 10,
    WORLD_HUGE_BYTES = 3 << 19
};

/** What must be so. */
struct model {
    pa_pptr at[WORLD_OWNERS];
    size_t usable[WORLD_OWNERS];
    bool owners; /* root and owner table are there */
    size_t root; /* else: bytes of the root, 0 = none */
    bool tree;   /* the anchor names a tree with keys 1 .. keys */
    uint64_t keys;
};

struct world {
    char dir[TEMP_PATH_MAX];
    pa_pool *pool;
    fptree *tree;
    struct owners o;
    struct model m;
    pa_pptr root;
    unsigned flags; /* pa_options.flags of opening and creation */
    unsigned cores;
    uint64_t max_size;
    const struct file_hooks *hooks; /* NULL = the fault's */
    bool background;                /* no hooks, so that the pool has its own thread */
    uint32_t slots;                 /* creation; 0 = 64 */
};

/** What runs now, for messages. */
extern char world_context[240];

/** Directories to begin with. */
enum image {
    IMAGE_NONE,     /* nothing there */
    IMAGE_LEFTOVER, /* what a crash in pa_create leaves */
    IMAGE_EMPTY,    /* a pool without content */
    IMAGE_CLOSED,   /* with the ranges above and a tree */
    IMAGE_KILLED, /* the same after a crash that left: a file half made, one half removed, one longer than its block, three
                       staged blocks, entries to redo */
    IMAGE_UNSOUND, /* closed, then the superblock damaged, and with a file that belongs to nobody */
    IMAGE_COUNT
};
/** Make the images in a temporary directory; once per process. */
void world_images(void);
/** A world on a copy of an image; the pool is closed. */
void world_begin(struct world *w, enum image image);
void world_end(struct world *w);
/** Where a repair puts what it replaces. */
struct temp_path world_aside(const struct world *w);

/** pool_create_ex, pool_open_ex with the fault's hooks; the pool's options follow from the world. */
int world_create(struct world *w);
int world_open(struct world *w);
/** Find the owners in the pool that has just been opened. */
void world_find(struct world *w);
/** Calls on owner i that keep the model true; on failure they check that the owner is as it was. */
int world_allocate(struct world *w, size_t i, size_t size, size_t alignment);
int world_reallocate(struct world *w, size_t i, size_t size);
int world_deallocate(struct world *w, size_t i);

/** The pool, open, holds exactly what the model says: owners, contents, blocks, statistics, tree. */
void world_verify(struct world *w, const char *when);
/** Open a copy of the directory, as after a crash now, and verify it. */
void world_verify_crash(struct world *w);
/** pa_check is content. stray: files that belong to no slot may be there. */
void world_check(const char *dir, bool stray, const char *when);
/** Close (if open), check, reopen, verify, work, close, check. */
void world_finish(struct world *w);

#endif
