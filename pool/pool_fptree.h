/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_fptree.h -- what tests and checks may ask of an application's tree. */
#ifndef POOL_POOL_FPTREE_H
#define POOL_POOL_FPTREE_H

#include <fptree.h>

#include "fptree/tree.h"

/** The tree behind a handle; the two are the same object. */
static inline struct tree *fptree_tree(const fptree *t)
{
    return (struct tree *)(uintptr_t)t;
}
/** See tree_check and tree_foreach_block. */
static inline int fptree_check(const fptree *t, struct tree_counts *ret_counts)
{
    return tree_check(fptree_tree(t), ret_counts);
}
static inline int fptree_foreach_block(const fptree *t, int (*visit)(pa_off block, void *arg), void *arg)
{
    return tree_foreach_block(fptree_tree(t), visit, arg);
}

#endif
