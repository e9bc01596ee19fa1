/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scenarios_dirs.c -- histories of directories: the pool's own is made, and a pool is spread over two further ones, of which the library
 * makes the second.
 */
#include "tests/explore/poolside.h"

#define HUGE_BYTES 1000000u

/* A pool over three directories; "more-1" is there. */
static struct poolside *dirs_pool(struct history *h, unsigned lanes)
{
    struct poolside *p = poolside_new(h, lanes, 16, 24, 1);
    p->fill_huge = true;
    poolside_spread(h, 2);
    return p;
}

/* The directory is not there. */
static int run_create_dir(struct history *h)
{
    struct poolside *p = poolside_new(h, 2, 16, 8, 1);
    p->may_not_exist = true;
    TRY(poolside_create(h, 0));
    return poolside_close(h);
}

static int run_dirs_create(struct history *h)
{
    dirs_pool(h, 1)->may_not_exist = true;
    TRY(recorder_make_dir(&h->recorder, "more-1"));
    history_settle(h);
    TRY(poolside_create(h, 0));
    return poolside_close(h);
}

/* Files of either kind are made and removed in each directory; slots are used again by the other kind. */
static int run_dirs_files(struct history *h)
{
    dirs_pool(h, 1);
    TRY(recorder_make_dir(&h->recorder, "more-1"));
    TRY(poolside_create(h, 14));
    history_from_here(h);
    for (unsigned i = 0; i < 4; i++)
        TRY(poolside_alloc(h, poolside_owner(i), i < 3 ? 900000 : 64));
    for (unsigned i = 4; i < 7; i++)
        TRY(poolside_alloc(h, poolside_owner(i), HUGE_BYTES));
    for (unsigned i = 0; i < 6; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    TRY(poolside_defragment(h, UINT64_MAX, true));
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    for (unsigned i = 0; i < 3; i++)
        TRY(poolside_alloc(h, poolside_owner(i), HUGE_BYTES));
    TRY(poolside_reallocate(h, poolside_owner(6), 2 * HUGE_BYTES, EITHER));
    for (unsigned i = 0; i < 2; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    for (unsigned i = 3; i < 5; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 900000));
    return poolside_close(h);
}

/* The links are lost, and led to the directories again by an open that names them. */
static int run_dirs_led(struct history *h)
{
    struct poolside *p = dirs_pool(h, 1);
    TRY(recorder_make_dir(&h->recorder, "more-1"));
    TRY(poolside_create(h, 6));
    TRY(poolside_alloc(h, poolside_owner(0), 900000));
    TRY(poolside_alloc(h, poolside_owner(1), HUGE_BYTES));
    TRY(poolside_close(h));
    TRY(poolside_cut_links(h));
    history_settle(h);
    p->name_dirs = true;
    TRY(poolside_open(h, 1));
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

#define DIRS_SCENARIO(NAME, TITLE, EVERY, BARE, IN_PLACE)                                                              \
    const struct scenario scenario_##NAME = {.name = #NAME,                                                            \
                                             .title = TITLE,                                                           \
                                             .run = run_##NAME,                                                        \
                                             .judge = poolside_judge,                                                  \
                                             .fini = poolside_fini,                                                    \
                                             .name_kills = (EVERY) / 16 + 1,                                           \
                                             .nested_every = EVERY,                                                    \
                                             .bare = BARE,                                                             \
                                             .in_place = IN_PLACE}

DIRS_SCENARIO(create_dir, "a pool is created, its directory too", 4, true, false);
DIRS_SCENARIO(dirs_create, "a pool is created over three directories", 64, true, true);
DIRS_SCENARIO(dirs_files, "segments and huge files of a pool over three directories", 16, false, true);
DIRS_SCENARIO(dirs_led, "the links to further directories are made anew", 8, false, true);
