/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_fork.c -- what a child process does with a pool that its parent has open: nothing, but for giving back its memory. */
#include <stdlib.h>
#include <unistd.h>

#include "pool/pool.h"

bool pool_is_inherited(const pa_pool *pool)
{
    return pool->opener != getpid();
}

/*
 * Only the thread that forked is in the child. What the others were just changing is half changed for ever, and the locks
 * that they held, libpmem2's too, stay held. So no lock is taken and no list is followed: the twins are reached by the table, whose
 * words are atomic. What hangs below the cores (tree nodes, descriptors of free blocks) stays allocated.
 */
void pool_leave_to_parent(pa_pool *pool)
{
    dir_leave_to_parent(&pool->dir, &pool->file);
    if (pool->manager.dir != NULL)
        manager_leave_to_parent(&pool->manager);
    free(pool->bigs);
    free(pool->leaf_spaces);
    free(pool->background.index);
    free(pool->smalls);
    free(pool->cores);
    free(pool);
}
