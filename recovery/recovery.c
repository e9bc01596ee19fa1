/* SPDX-License-Identifier: BSD-3-Clause */
/* recovery.c -- see recovery.h. */
#include "recovery/recovery.h"

#include <stdlib.h>

#include "base/error.h"
#include "segment/owner.h"
#include "small/small.h"

struct pm_lane_entry *recovery_ring(const struct manager *m, uint32_t lane)
{
    char *lanes = (char *)m->pool_file->address + POOL_LANES_OFFSET;
    return (struct pm_lane_entry *)lanes + (size_t)lane * m->geometry.lane_entries;
}

static int bad_entry(const struct pm_lane_entry *e, uint32_t lane, const char *what)
{
    return error_set(PA_ECORRUPT, "pool.pa: lane %u, entry with LSN %llu: %s; restore the pool from a backup", lane,
                     (unsigned long long)e->lsn, what);
}

/* Could an owner pointer be there? In a present segment's blocks, or the root line. */
static pa_pptr *owner_at(const struct manager *m, pa_off dst)
{
    if (dst == POOL_ROOT_OFFSET)
        return (pa_pptr *)(m->base + dst);
    pa_pptr p = manager_pptr(m, dst);
    struct segment *s = manager_segment(m, p.segment);
    if (!segment_is_present(s) || p.offset % sizeof(pa_pptr) != 0 || p.offset < SEGMENT_HEADER_BYTES)
        return NULL;
    return (pa_pptr *)(m->base + dst);
}

/* The newest entry, if it is not DONE: its owner pointer may be unfinished. */
static int finish_owner(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, uint32_t lane)
{
    pa_pptr block = manager_pptr(m, e->block);
    pa_pptr *dst = owner_at(m, e->dst);
    switch (e->op) {
    case LANE_OP_SMALL_ALLOC:
        if (dst == NULL)
            return bad_entry(e, lane, "its owner pointer lies outside the pool");
        if (!segment_is_present(manager_segment(m, block.segment)))
            return bad_entry(e, lane, "its block lies outside the pool");
        owner_store(m->media, t, dst, block);
        return 0;
    case LANE_OP_SMALL_FREE: /* the owner's own block may have been freed since: then there is nothing to null */
        if (dst != NULL && owner_names(dst, block))
            owner_store(m->media, t, dst, PA_NULL);
        return 0;
    default:
        return 0;
    }
}

static int redo_entry(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, uint32_t lane)
{
    switch (e->op) {
    case LANE_OP_SMALL_ALLOC:
    case LANE_OP_SMALL_FREE:
        return small_redo(m, t, e, lane);
    default:
        return 0;
    }
}

static int replay(struct manager *m, struct media_tally *t, uint32_t lane, struct lane_scan *ret_scan)
{
    const struct pm_lane_entry *ring = recovery_ring(m, lane);
    uint32_t entries = m->geometry.lane_entries;
    int code = lane_scan(ring, entries, lane, ret_scan);
    for (uint32_t i = 0; code == 0 && i < ret_scan->valid; i++)
        code = redo_entry(m, t, lane_scan_entry(ring, entries, ret_scan, i), lane);
    if (code == 0 && ret_scan->valid != 0)
        code = finish_owner(m, t, &ring[ret_scan->newest], lane);
    return code;
}

/* Close a lane that holds entries, so that the next open redoes no owner pointer of before this one. */
static int close_lane(struct manager *m, struct media_tally *t, uint32_t lane, uint64_t *lsn, uint32_t *next)
{
    struct lane l;
    int code = lane_init(&l, m->media, recovery_ring(m, lane), m->geometry.lane_entries, *next, *lsn);
    if (code != 0)
        return code;
    lane_done(&l, t);
    *lsn = l.lsn;
    *next = l.next;
    lane_fini(&l);
    return 0;
}

/*
 * step                                        | durable after it   | a crash here recovers by
 * --------------------------------------------+--------------------+---------------------------------------------------
 * 1 redo every entry on older lines, newest   | maybe parts        | the same again: redo is idempotent, LSNs only rise
 *   entry's owner pointer; write-backs, fence | all of it          | the same again: nothing left to do
 * 2 DONE entry in each lane that was not done | the end            | the same again, without owner pointers
 *
 * Lanes are independent: a line's entries are all in one lane, or the older lane was settled before the newer one began.
 */
int recovery_run(struct manager *m, struct media_tally *t, uint32_t *ret_next, uint64_t *ret_lsn)
{
    uint32_t lanes = m->geometry.lanes;
    struct lane_scan *scans = calloc(lanes, sizeof *scans);
    if (scans == NULL)
        return error_set(PA_ENOMEM, "no memory to read %u lanes", lanes);
    uint64_t lsn = 0;
    int code = 0;
    for (uint32_t lane = 0; code == 0 && lane < lanes; lane++) {
        code = replay(m, t, lane, &scans[lane]);
        ret_next[lane] = (scans[lane].newest + 1) & (m->geometry.lane_entries - 1);
        if (lsn < scans[lane].lsn)
            lsn = scans[lane].lsn;
    }
    if (code == 0)
        media_drain(m->media, t); /* before DONE: it ends the redo of owner pointers; and before a new entry overwrites an old one */
    for (uint32_t lane = 0; code == 0 && lane < lanes; lane++)
        if (scans[lane].valid != 0 && recovery_ring(m, lane)[scans[lane].newest].op != LANE_OP_DONE)
            code = close_lane(m, t, lane, &lsn, &ret_next[lane]);
    free(scans);
    *ret_lsn = lsn;
    return code;
}
