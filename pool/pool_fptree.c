/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_fptree.c -- trees of the application: fptree.h on a pool's blocks. A handle is the struct tree itself. */
#include "pool/pool_fptree.h"

#include <string.h>

#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_call.h"
#include "pool/pool_watch.h"

/* --- the pool as a leaf space ---------------------------------------------------------------------------------------------- */

static int leaf_allocate(void *context, pa_pptr *owner, size_t bytes)
{
    return pool_watch_filled(context, owner, pa_allocate(context, owner, bytes));
}

static int leaf_deallocate(void *context, pa_pptr *owner)
{
    return pa_deallocate(context, owner);
}

static bool leaf_is_valid(void *context, pa_off off, size_t bytes)
{
    const pa_pool *pool = context;
    return pool_usable_size(pool, pa_off_pptr(pool, off)) >= bytes;
}

static pa_pptr leaf_pptr(void *context, pa_off off)
{
    return pa_off_pptr(context, off);
}

static pa_off leaf_off(void *context, pa_pptr owner)
{
    return pa_off_of(context, owner);
}

static void leaf_count(void *context, const struct media_tally *t)
{
    pool_count(context, t);
}

/* --- open and close --------------------------------------------------------------------------------------------------------- */

static int check_anchor(const pa_pool *pool, const pa_pptr *anchor)
{
    if (anchor == NULL || (uintptr_t)anchor % sizeof *anchor != 0 || pa_is_null(pa_pptr_of(pool, anchor)))
        return error_set(PA_EINVAL, "the anchor at %p is no 16-byte aligned address in the pool in %s",
                         (const void *)anchor, pool->dir.path);
    if (pa_is_null(*anchor) && pool->read_only)
        return error_set(PA_EACCES,
                         "the anchor at %p is null, and the pool in %s is open read-only: no tree can be made",
                         (const void *)anchor, pool->dir.path);
    return 0;
}

/* The header block of a tree that could not be opened: the anchor was null before. */
static void undo(pa_pool *pool, pa_pptr *anchor)
{
    struct error_text first;
    error_save(&first);
    (void)pool_free(pool, anchor, NULL); /* else the next open finds it, blank or formatted */
    error_restore(&first);
}

/* The tree does not know whose it is. */
static int say_where(const pa_pool *pool, pa_pptr block)
{
    struct error_text cause;
    error_save(&cause);
    bool remedy = strstr(cause.text, "restore") != NULL;
    return error_set(PA_ECORRUPT, "%s: the tree in segment %llu offset %llu: %s%s", pool->dir.path,
                     (unsigned long long)block.segment, (unsigned long long)block.offset, cause.text,
                     remedy ? "" : "; restore the pool from a backup");
}

/*
 * step                                                       | durable after it       | a crash here
 * -----------------------------------------------------------+------------------------+---------------------------------
 * 1 pool_allocate_blank: *anchor names the header block      | the block, line 1 zero | the next open goes on with 2
 * 2 tree_open: formats (a step table is there) or recovers   | the tree               | the next open recovers
 */
int fptree_open(pa_pool *pool, pa_pptr *anchor, fptree **ret)
{
    int code = check_anchor(pool, anchor);
    bool made = code == 0 && pa_is_null(*anchor);
    if (made)
        code = pool_allocate_blank(pool, anchor, TREE_HEADER_BYTES);
    if (code != 0)
        return code;
    pa_pptr block = *anchor;
    if (pool_usable_size(pool, block) < TREE_HEADER_BYTES || block.offset % MEDIA_LINE_BYTES != 0)
        return error_set(PA_ECORRUPT, "the anchor names segment %llu offset %llu, which is no block with a tree",
                         (unsigned long long)block.segment, (unsigned long long)block.offset);
    struct tree_space space = {.context = pool,
                               .base = pool->manager.base,
                               .media = pool_media(pool),
                               .allocate = leaf_allocate,
                               .deallocate = leaf_deallocate,
                               .is_valid = leaf_is_valid,
                               .pptr_of = leaf_pptr,
                               .off_of = leaf_off,
                               .count = leaf_count};
    struct tree *t;
    code = tree_open(&space, pa_off_of(pool, block), TREE_RULE_SELF, &t);
    if (code == 0)
        *ret = (fptree *)t;
    else if (made)
        undo(pool, anchor);
    return code == PA_ECORRUPT ? say_where(pool, block) : code;
}

int fptree_close(fptree *t)
{
    tree_close(fptree_tree(t));
    return 0;
}

/* Used only where calls are counted. */
static inline const pa_pool *tree_pool(const fptree *t)
{
    return tree_space_context(fptree_tree(t));
}

/* --- operations ------------------------------------------------------------------------------------------------------------- */

int fptree_insert(fptree *t, uint64_t key, uint64_t value)
{
    POOL_CALL(tree_pool(t));
    return tree_insert(fptree_tree(t), key, value);
}

int fptree_upsert(fptree *t, uint64_t key, uint64_t value)
{
    POOL_CALL(tree_pool(t));
    return tree_upsert(fptree_tree(t), key, value);
}

int fptree_find(fptree *t, uint64_t key, uint64_t *ret_value)
{
    POOL_CALL(tree_pool(t));
    return tree_find(fptree_tree(t), key, ret_value);
}

int fptree_remove(fptree *t, uint64_t key)
{
    POOL_CALL(tree_pool(t));
    return tree_remove(fptree_tree(t), key);
}

int fptree_scan(fptree *t, uint64_t from, fptree_visit_fn visit, void *arg)
{
    POOL_CALL(tree_pool(t));
    return tree_scan(fptree_tree(t), from, visit, arg);
}
