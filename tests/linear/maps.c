/* SPDX-License-Identifier: BSD-3-Clause */
/* maps.c -- see maps.h. */
#include "tests/linear/maps.h"

#include <sched.h>
#include <string.h>

/* --- a tree in a space ---------------------------------------------------------------------------------------------------- */

static int space_insert(void *t, uint64_t key, uint64_t value)
{
    return tree_insert(t, key, value);
}

static int space_upsert(void *t, uint64_t key, uint64_t value)
{
    return tree_upsert(t, key, value);
}

static int space_find(void *t, uint64_t key, uint64_t *ret_value)
{
    return tree_find(t, key, ret_value);
}

static int space_remove(void *t, uint64_t key)
{
    return tree_remove(t, key);
}

static int space_scan(void *t, uint64_t from, history_visit_fn visit, void *arg)
{
    return tree_scan(t, from, visit, arg);
}

struct history_map map_of_tree(struct tree *t)
{
    return (struct history_map){t, space_insert, space_upsert, space_find, space_remove, space_scan};
}

/* --- a tree in a pool, by the public interface ----------------------------------------------------------------------------- */

static int pool_insert(void *t, uint64_t key, uint64_t value)
{
    return fptree_insert(t, key, value);
}

static int pool_upsert(void *t, uint64_t key, uint64_t value)
{
    return fptree_upsert(t, key, value);
}

static int pool_find(void *t, uint64_t key, uint64_t *ret_value)
{
    return fptree_find(t, key, ret_value);
}

static int pool_remove(void *t, uint64_t key)
{
    return fptree_remove(t, key);
}

static int pool_scan(void *t, uint64_t from, history_visit_fn visit, void *arg)
{
    return fptree_scan(t, from, visit, arg);
}

struct history_map map_of_fptree(fptree *t)
{
    return (struct history_map){t, pool_insert, pool_upsert, pool_find, pool_remove, pool_scan};
}

/* --- a map that is wrong -------------------------------------------------------------------------------------------------- */

static uint64_t wrong[WRONG_KEYS];

static uint64_t look(uint64_t key)
{
    uint64_t value = __atomic_load_n(&wrong[key], __ATOMIC_RELAXED);
    sched_yield(); /* between the look and the change, others come */
    return value;
}

static int wrong_upsert(void *map, uint64_t key, uint64_t value)
{
    (void)map;
    __atomic_store_n(&wrong[key], value, __ATOMIC_RELAXED);
    return 0;
}

static int wrong_insert(void *map, uint64_t key, uint64_t value)
{
    return look(key) != 0 ? PA_EEXIST : wrong_upsert(map, key, value);
}

static int wrong_find(void *map, uint64_t key, uint64_t *ret_value)
{
    (void)map;
    *ret_value = look(key);
    return *ret_value != 0 ? 0 : PA_ENOENT;
}

static int wrong_remove(void *map, uint64_t key)
{
    return look(key) == 0 ? PA_ENOENT : wrong_upsert(map, key, 0);
}

static int wrong_scan(void *map, uint64_t from, history_visit_fn visit, void *arg)
{
    int stop = 0;
    for (uint64_t key = from, value; stop == 0 && key < WRONG_KEYS; key++)
        if (wrong_find(map, key, &value) == 0)
            stop = visit(key, value, arg);
    return stop;
}

struct history_map map_that_is_wrong(void)
{
    memset(wrong, 0, sizeof wrong);
    return (struct history_map){NULL, wrong_insert, wrong_upsert, wrong_find, wrong_remove, wrong_scan};
}
