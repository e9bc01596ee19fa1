/* SPDX-License-Identifier: BSD-3-Clause */
/* scenarios_space.c -- histories of free space: coalescing, holes, deletion of segments, and slots that are used again. */
#include "tests/explore/poolside.h"

#define ALL UINT64_MAX

/* Six blocks side by side, the first at the end, freed so that a block meets no free neighbour, the left one, the right one, both;
 * then all of the segment. Killed in between, so that the free blocks are read from the index. */
static int run_coalesce(struct history *h)
{
    static const unsigned order[] = {1, 3, 2, 0, 5, 4}; /* none, none, both, right, none, both: whole */
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 10));
    for (unsigned i = 0; i < 6; i++) {
        TRY(poolside_alloc(h, poolside_owner(i), i == 5 ? 380000 : 100000));
        TRY(poolside_stamp(h, poolside_owner(i)));
    }
    history_from_here(h);
    for (unsigned i = 0; i < 6; i++) {
        TRY(poolside_free(h, poolside_owner(order[i])));
        if (i == 2) {
            TRY(poolside_kill(h));
            TRY(poolside_open(h, 1));
        }
    }
    TRY(poolside_alloc(h, poolside_owner(0), 50000));
    TRY(poolside_alloc(h, poolside_owner(1), 50000));
    TRY(poolside_alloc(h, poolside_owner(2), 50000));
    TRY(poolside_free(h, poolside_owner(2))); /* left of it free, right of it used */
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

/* Holes between big blocks: punched, filled by an allocation, by growth, merged with free blocks, punched again. */
static int run_holes_big(struct history *h)
{
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 12));
    for (unsigned i = 0; i < 6; i++) {
        TRY(poolside_alloc(h, poolside_owner(i), 60000)); /* 15 pages */
        TRY(poolside_stamp(h, poolside_owner(i)));
    }
    TRY(poolside_alloc(h, poolside_owner(6), 500000)); /* else the free rest of the segment would be taken first */
    TRY(poolside_alloc(h, poolside_owner(7), 16385));
    for (unsigned i = 0; i < 6; i += 2)
        TRY(poolside_free(h, poolside_owner(i)));
    history_from_here(h);
    TRY(poolside_defragment(h, ALL, true));
    TRY(poolside_alloc(h, poolside_owner(0), 20000));              /* a part of a hole */
    TRY(poolside_alloc(h, poolside_owner(2), 60000));              /* a whole one */
    TRY(poolside_reallocate(h, poolside_owner(5), 100000, STAYS)); /* grows into one */
    TRY(poolside_free(h, poolside_owner(0)));                      /* beside what is left of a hole */
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    TRY(poolside_alloc(h, poolside_owner(4), 40000));
    TRY(poolside_defragment(h, ALL, true));
    TRY(poolside_free(h, poolside_owner(5)));
    TRY(poolside_alloc(h, poolside_owner(5), 110000));
    return poolside_close(h);
}

/* Slabs without a block lose their space, and get it back for another class. */
static int run_holes_small(struct history *h)
{
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 40));
    for (unsigned i = 0; i < 16; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    TRY(poolside_stamp(h, poolside_owner(15)));
    for (unsigned i = 0; i < 12; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    history_from_here(h);
    TRY(poolside_defragment(h, 2 * 65536, true));
    for (unsigned i = 0; i < 9; i++)
        TRY(poolside_alloc(h, poolside_owner(i), i % 2 == 0 ? 5000 : 12000));
    TRY(poolside_defragment(h, ALL, true));
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    for (unsigned i = 20; i < 26; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    for (unsigned i = 0; i < 9; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    TRY(poolside_defragment(h, ALL, true));
    TRY(poolside_alloc(h, poolside_owner(0), 700));
    return poolside_close(h);
}

/* Segments without a block are deleted; their slots serve other kinds of segment and huge files, while the ring still holds
 * entries about what was there. */
static int run_deletion(struct history *h)
{
    poolside_new(h, 1, 64, 8, 1)->fill_huge = true;
    TRY(poolside_create(h, 30));
    TRY(poolside_alloc(h, poolside_owner(20), 300));
    TRY(poolside_stamp(h, poolside_owner(20)));
    history_from_here(h);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 3; i++)
            TRY(poolside_alloc(h, poolside_owner(i), 400000)); /* two segments */
        for (unsigned i = 0; i < 3; i++)
            TRY(poolside_free(h, poolside_owner(i)));
        TRY(poolside_defragment(h, ALL, true));
        if (round == 0)
            TRY(poolside_alloc(h, poolside_owner(3), 1000000)); /* a huge file in the slot */
        if (round == 1)
            TRY(poolside_kill(h));
        if (round == 1)
            TRY(poolside_open(h, 1));
    }
    TRY(poolside_free(h, poolside_owner(3)));
    return poolside_close(h);
}

/* The same with small segments, down to the slabs' lines of the file that comes after. */
static int run_deletion_small(struct history *h)
{
    poolside_new(h, 1, 64, 8, 1);
    TRY(poolside_create(h, OWNERS_MAX + 20));
    for (unsigned i = 0; i < 60; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    history_from_here(h);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 60; i < 66; i++)
            TRY(poolside_alloc(h, poolside_owner(i), 16384));
        for (unsigned i = 52; i < 66; i++)
            TRY(poolside_free(h, poolside_owner(i)));
        TRY(poolside_defragment(h, ALL, true));
        for (unsigned i = 52; i < 60; i++)
            TRY(poolside_alloc(h, poolside_owner(i), round == 0 ? 16384 : 12000));
        TRY(poolside_kill(h));
        TRY(poolside_open(h, 1));
    }
    return poolside_close(h);
}

/* A segment is made ahead, left by a killed process, taken by each allocator, and deleted. */
static int run_spare(struct history *h)
{
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 10));
    history_from_here(h);
    TRY(poolside_spare(h));
    TRY(poolside_alloc(h, poolside_owner(0), 20000)); /* takes it */
    TRY(poolside_spare(h));
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    TRY(poolside_alloc(h, poolside_owner(1), 900000)); /* takes it too */
    TRY(poolside_spare(h));
    TRY(poolside_defragment(h, ALL, true));
    TRY(poolside_spare(h));
    TRY(poolside_free(h, poolside_owner(1)));
    return poolside_close(h);
}

/* A huge block in slots 2 .. 6 or 7, a free segment in slot 8, whose word is in the next line of the table. */
static int make_segment_8(struct history *h, unsigned more_slots)
{
    poolside_new(h, 1, 16, 20, 1);
    TRY(poolside_create(h, 6));
    TRY(poolside_alloc(h, poolside_owner(0), 300));
    TRY(poolside_alloc(h, poolside_owner(1), (more_slots << 20) + 1000));
    if (more_slots == 4)
        TRY(poolside_alloc(h, poolside_owner(2), 1000000));
    TRY(poolside_spare(h));
    return 0;
}

/* A process died in the deletion of the highest segment, before the announcement was written back. */
static int run_deletion_begun(struct history *h)
{
    TRY(make_segment_8(h, 5));
    TRY(poolside_deletion_in_cache(h, 8, false));
    history_from_here(h);
    TRY(poolside_open(h, 1));
    return poolside_close(h);
}

/* The same, before the end of the deletion was written back. A huge block then covers its slot. */
static int run_deletion_ended(struct history *h)
{
    TRY(make_segment_8(h, 4));
    TRY(poolside_free(h, poolside_owner(2)));
    TRY(poolside_deletion_in_cache(h, 8, true));
    history_from_here(h);
    TRY(poolside_open(h, 1));
    TRY(poolside_alloc(h, poolside_owner(3), 1500000));
    return poolside_close(h);
}

POOL_SCENARIO(deletion_begun, "a deletion whose announcement a killed process left in the cache", 16);
POOL_SCENARIO(deletion_ended, "a deletion whose end a killed process left in the cache", 16);
POOL_SCENARIO(spare, "segments are made ahead of need", 16);
POOL_SCENARIO(coalesce, "big blocks are freed beside free ones on either side", 0);
POOL_SCENARIO(holes_big, "holes in big segments are punched and filled", 16);
POOL_SCENARIO(holes_small, "holes in small segments are punched and filled", 16);
POOL_SCENARIO(deletion, "segments are deleted and their slots used again", 16);
POOL_SCENARIO(deletion_small, "small segments are deleted and their slots used again", 0);
