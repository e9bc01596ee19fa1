/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wreck.h -- for tests of repair: a pool with blocks of every kind, whose files a test damages, and the question whether the blocks that
 * were somebody's are as they were.
 */
#ifndef TESTS_SUPPORT_WRECK_H
#define TESTS_SUPPORT_WRECK_H

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/temp.h"

#define WRECK_OWNERS   400u
#define WRECK_SEGMENT  (1ull << 20)
#define WRECK_MAX_SIZE (24ull << 20)
#define WRECK_DIRS_MAX 3u

/** The pool of the running test. */
struct wreck {
    struct temp_path dir, more[WRECK_DIRS_MAX];
    unsigned dirs; /* of more */
    struct pm_superblock geometry;
    pa_pptr owners[WRECK_OWNERS]; /* what they named last */
    bool pairs_are_lost;          /* some blocks stay allocated, but nobody knows any more where they begin */
};
extern struct wreck wreck;

/** Bytes of the i-th owner's block. */
size_t wreck_size_of(size_t i);
/** Make the pool, with further directories; NULL if it is to be closed. */
pa_pool *wreck_make(bool close, unsigned dirs);
/** Open it with one core. */
pa_pool *wreck_open(void);
/** Allocate into the i-th owner; remembers it. */
void wreck_allocate(const struct owners *o, size_t i, size_t size);

/** Every owner names what it named, which is allocated and has its contents; or the test ends. */
void wreck_survives(pa_pool *pool, const char *when);
/** No two blocks overlap, or the test ends. */
void wreck_no_overlap(pa_pool *pool);
/** Take what is left, write over it, give it back: whatever was free is nobody else's. survives is asked when the pool is full. */
void wreck_fill_and_empty(pa_pool *pool, void (*survives)(pa_pool *pool, const char *when));

struct temp_path wreck_file(const char *name);
/** Name of a slot's file in the pool's directory. */
void wreck_name(char name[32], uint64_t slot, bool huge);
void wreck_put(const char *name, uint64_t offset, const void *bytes, size_t size);
void wreck_get(const char *name, uint64_t offset, void *bytes, size_t size);
/** Names of all files of the pool, those of further directories with them; what does not belong to a pool is left out. */
size_t wreck_files(char (*names)[64], size_t max);
/** A hash over all files and links in all directories. */
uint64_t wreck_hash(void);

/** All files, to go back to. */
struct wreck_image {
    size_t n;
    char (*names)[64];
    char **data;
    size_t *sizes;
};
struct wreck_image wreck_save(void);
/** As it was; what was not there then is removed. */
void wreck_restore(const struct wreck_image *image);
/** Make the pool, use it again, and lose what so many last operations changed in place in slab lines, as a crash may. How it was before
 *  them. */
struct wreck_image wreck_crash(uint32_t operations);

#endif
