/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_lane.c -- lanes with damaged entries.
 *
 * An entry of which one word is damaged is found again: the values that the word may have had are tried until the checksum fits. An
 * entry that is lost is replaced by a DONE entry, which redoes nothing. What that may lose, by its neighbours:
 *
 *   after an allocation                  | nothing: it was that allocation's DONE
 *   all other entries stand on the media | nothing: the lane was settled, or its process died and the system did not
 *   the lane has big segments            | maybe a change of a block index, on which later ones build: refused
 *   the next one is not DONE             | it was no allocation; at most a free is not redone, so a block leaks
 *   else                                 | maybe an allocation whose bit did not arrive, while its owner names the block: what is
 *                                        | free in all lines that may be its own is made used (seal)
 */
#include "big/big.h"
#include "pool/repair.h"
#include "recovery/recovery.h"

#define LSN_TRIES 65536u
#define LOST_PART 8u /* more than this part of a ring damaged: refused */

/* --- what entries tell ---------------------------------------------------------------------------------------------------- */

static const struct pm_lane_entry *all_entries(const struct repair *r, size_t *ret_count)
{
    const struct pm_superblock *g = &r->manager.geometry;
    *ret_count = (size_t)g->lanes * g->lane_entries;
    return recovery_ring(&r->manager, 0);
}

static bool is_small(const struct pm_lane_entry *e)
{
    return e->op == LANE_OP_SMALL_ALLOC || e->op == LANE_OP_SMALL_FREE || e->op == LANE_OP_SMALL_HOLE;
}
static bool is_big(const struct pm_lane_entry *e)
{
    return e->op == LANE_OP_BIG_ALLOC || e->op == LANE_OP_BIG_FREE || e->op == LANE_OP_BIG_CHANGE;
}
static bool is_alloc(const struct pm_lane_entry *e)
{
    return e->op == LANE_OP_SMALL_ALLOC || e->op == LANE_OP_BIG_ALLOC || e->op == LANE_OP_HUGE_ALLOC;
}

enum segment_kind repair_lane_hint(const struct repair *r, uint32_t slot, uint64_t born)
{
    size_t count;
    const struct pm_lane_entry *e = all_entries(r, &count);
    uint64_t newest = born;
    enum segment_kind kind = SEGMENT_KIND_NONE;
    for (size_t i = 0; i < count; i++)
        if (e[i].lsn > newest && e[i].block >> r->manager.shift == slot && (is_small(&e[i]) || is_big(&e[i])) &&
            lane_entry_is_valid(&e[i])) {
            newest = e[i].lsn;
            kind = is_small(&e[i]) ? SEGMENT_KIND_SMALL : SEGMENT_KIND_BIG;
        }
    return kind;
}

int repair_lane_class(const struct repair *r, uint32_t slot, uint32_t slab)
{
    const struct manager *m = &r->manager;
    uint64_t from =
        ((uint64_t)slot << m->shift) + small_first_slab_of(m->geometry.segment_size) + (uint64_t)slab * SLAB_BYTES;
    size_t count;
    const struct pm_lane_entry *e = all_entries(r, &count);
    uint64_t newest = segment_header(manager_segment(m, slot))->born;
    int class_index = -1;
    for (size_t i = 0; i < count; i++)
        if (e[i].lsn > newest && e[i].block >= from && e[i].block < from + SLAB_BYTES && is_small(&e[i]) &&
            lane_entry_is_valid(&e[i])) {
            newest = e[i].lsn;
            class_index = e[i].class_index;
        }
    return class_index;
}

/* --- finding a damaged word again ----------------------------------------------------------------------------------------- */

struct gap {
    uint64_t above, below; /* the entry's LSN lies between these */
};

static bool fits(const struct pm_lane_entry *e, const struct gap *g)
{
    return e->lsn > g->above && e->lsn < g->below && lane_entry_is_valid(e);
}

static bool try_lsn(struct pm_lane_entry *e, const struct gap *g)
{
    uint64_t old = e->lsn;
    for (uint64_t n = 1; n < LSN_TRIES && g->above + n < g->below; n++)
        if (e->lsn = g->above + n, lane_entry_is_valid(e))
            return true;
    e->lsn = old;
    return false;
}

static bool try_bits(struct pm_lane_entry *e, const struct gap *g)
{
    unsigned char *bytes = (unsigned char *)e;
    for (unsigned bit = 0; bit < sizeof *e * 8; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (fits(e, g))
            return true;
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    return false;
}

/* The word of op, class, flags, changes, staging and pages. */
static bool try_operation(struct pm_lane_entry *e, const struct gap *g)
{
    struct pm_lane_entry t = *e;
    if (t.lsn <= g->above || t.lsn >= g->below)
        return false;
    t.staging = t.zero = 0;
    t.changes = 0;
    for (t.op = LANE_OP_DONE; t.op < LANE_OP_COUNT; t.op++)
        for (t.flags = 0; t.flags < 8; t.flags++)
            for (t.class_index = 0; t.class_index < SMALL_CLASS_TAGS; t.class_index++)
                if (lane_entry_is_valid(&t))
                    return *e = t, true;
    for (t.op = LANE_OP_BIG_ALLOC; t.op <= LANE_OP_BIG_CHANGE; t.op++)
        for (t.flags = 0; t.flags < 8; t.flags += LANE_FLAG_HOLE)
            for (t.changes = 1; t.changes <= BIG_CHANGES_MAX; t.changes++)
                for (uint32_t pages = 0; pages <= BIG_SIZE_MAX >> BIG_PAGE_SHIFT; pages++) {
                    t.class_index = (uint8_t)pages;
                    t.zero = (uint16_t)(pages >> 8);
                    if (lane_entry_is_valid(&t))
                        return *e = t, true;
                }
    return false;
}

static bool try_argument(struct pm_lane_entry *e, const struct gap *g)
{
    struct pm_lane_entry t = *e;
    memset(t.argument, 0, sizeof t.argument); /* small entries and DONE have none */
    if (!fits(&t, g))
        return false;
    *e = t;
    return true;
}

/* block or dst: every place that there is, within limits. */
static bool try_places(const struct repair *r, struct pm_lane_entry *e, uint64_t *word, uint64_t step)
{
    const struct manager *m = &r->manager;
    uint64_t tries = 0, old = *word;
    for (uint64_t off = POOL_ROOT_OFFSET; off < m->geometry.table_offset; off += sizeof(pa_pptr))
        if (*word = off, lane_entry_is_valid(e))
            return true;
    for (uint32_t slot = m->first_slot; slot < m->slots; slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (!segment_is_present(s))
            continue;
        uint64_t at = (uint64_t)slot << m->shift;
        for (uint64_t end = at + m->geometry.segment_size; at < end && tries < REPAIR_TRIES_MAX; at += step, tries++)
            if (*word = at, lane_entry_is_valid(e))
                return true;
    }
    *word = old;
    return false;
}

/* The checksum itself: all else has to be just what the library writes. */
static bool try_checksum(const struct repair *r, struct pm_lane_entry *e, const struct gap *g)
{
    const struct manager *m = &r->manager;
    static const uint8_t zero[sizeof e->argument];
    struct pm_lane_entry t = *e;
    if ((t.lsn != g->above + 1 && t.lsn != g->below - 1) || t.lsn <= g->above || t.lsn >= g->below ||
        memcmp(t.argument, zero, sizeof zero) != 0 || t.zero != 0 || t.changes != 0)
        return false;
    pa_pptr p = manager_pptr(m, t.block);
    uint64_t data = small_first_slab_of(m->geometry.segment_size);
    bool small = (t.op == LANE_OP_SMALL_ALLOC || t.op == LANE_OP_SMALL_FREE) && t.class_index < SMALL_CLASSES &&
                 t.dst % sizeof(pa_pptr) == 0 && (t.flags & LANE_FLAG_HOLE) == 0 &&
                 repair_is_kind(manager_segment(m, p.segment), SEGMENT_KIND_SMALL) && p.offset >= data &&
                 (p.offset - data) % SLAB_BYTES % small_class_bytes(t.class_index) == 0;
    bool done =
        t.op == LANE_OP_DONE && t.block == 0 && t.dst == 0 && t.flags == 0 && t.class_index == 0 && t.staging == 0;
    if (!small && !done)
        return false;
    t.checksum = lane_entry_checksum(&t);
    *e = t;
    return true;
}

static bool restore(const struct repair *r, struct pm_lane_entry *e, const struct gap *g)
{
    if (lane_entry_is_empty(e))
        return false;
    if (try_bits(e, g) || try_lsn(e, g) || try_operation(e, g) || try_argument(e, g) || try_checksum(r, e, g))
        return true;
    if (e->lsn <= g->above || e->lsn >= g->below || e->op == LANE_OP_DONE || e->op >= LANE_OP_COUNT)
        return false;
    return try_places(r, e, &e->block, is_small(e) ? 16 : BIG_PAGE_BYTES) || try_places(r, e, &e->dst, sizeof(pa_pptr));
}

/* --- what a lost entry may have been -------------------------------------------------------------------------------------- */

bool repair_may_own(uint32_t lane, unsigned owner, uint32_t lanes)
{
    if (owner == lane)
        return true;
    for (uint32_t cores = lane + 1; owner > lane && cores <= owner && cores <= lanes; cores++)
        if ((owner - lane) % cores == 0)
            return true;
    return false;
}

static bool small_stands(const struct repair *r, const struct pm_lane_entry *e)
{
    const struct manager *m = &r->manager;
    pa_pptr p = manager_pptr(m, e->block);
    const struct segment *s = manager_segment(m, p.segment);
    uint64_t data = small_first_slab_of(m->geometry.segment_size);
    if (!repair_is_kind(s, SEGMENT_KIND_SMALL) || e->lsn <= segment_header(s)->born || p.offset < data)
        return true;
    uint32_t within = (uint32_t)((p.offset - data) % SLAB_BYTES);
    uint32_t block = e->op == LANE_OP_SMALL_HOLE ? 0 : within / small_class_bytes(e->class_index % SMALL_CLASSES);
    return repair_lines(s, (uint32_t)((p.offset - data) / SLAB_BYTES))[slab_line_of(block) % SLAB_LINES].lsn >= e->lsn;
}

static bool big_stands(const struct repair *r, const struct pm_lane_entry *e)
{
    struct big_entry b;
    if (!big_entry_decode(e, &b))
        return true;
    for (uint32_t i = 0; i < b.changes; i++)
        if (pool_is_leaf(&r->manager, b.change[i].leaf) &&
            ((const struct pm_tree_leaf *)(r->manager.base + b.change[i].leaf))->lsn < e->lsn)
            return false;
    return true;
}

static bool all_stand(const struct repair *r, const struct pm_lane_entry *ring)
{
    for (uint32_t i = 0; i < r->manager.geometry.lane_entries; i++)
        if (lane_entry_is_valid(&ring[i]) &&
            ((is_small(&ring[i]) && !small_stands(r, &ring[i])) || (is_big(&ring[i]) && !big_stands(r, &ring[i]))))
            return false;
    return true;
}

static bool has_big_segments(const struct repair *r, uint32_t lane)
{
    for (uint32_t slot = 0; slot < r->manager.slots; slot++) {
        const struct segment *s = manager_segment(&r->manager, slot);
        if (repair_is_kind(s, SEGMENT_KIND_BIG) &&
            repair_may_own(lane, atomic_load(&s->owner) % r->manager.geometry.lanes, r->manager.geometry.lanes))
            return true;
    }
    return false;
}

/* --- a ring --------------------------------------------------------------------------------------------------------------- */

/* So many lost entries may hide anything, newer ones than all that are left too. */
static bool too_many(struct repair *r, uint32_t lane)
{
    uint32_t entries = r->manager.geometry.lane_entries, lost = 0;
    const struct pm_lane_entry *ring = recovery_ring(&r->manager, lane);
    for (uint32_t i = 0; i < entries; i++)
        lost += !lane_entry_is_valid(&ring[i]) && !lane_entry_is_empty(&ring[i]);
    return lost > entries / LOST_PART;
}

/* The entry after the newest may be torn. If the next one is damaged too, both may be newer than what looks like the newest. */
static bool end_is_lost(const struct pm_lane_entry *ring, uint32_t entries, uint32_t newest, bool went_round)
{
    const struct pm_lane_entry *a = &ring[(newest + 1) & (entries - 1)], *b = &ring[(newest + 2) & (entries - 1)];
    if (lane_entry_is_valid(a) || lane_entry_is_valid(b))
        return false;
    return went_round || (!lane_entry_is_empty(a) && !lane_entry_is_empty(b));
}

static void refuse_lane(struct repair *r, uint32_t lane)
{
    repair_refuse(r,
                  POOL_FILE_NAME
                  ": so much of lane %u is damaged that its newest entries may be lost; restore the pool "
                  "from a backup",
                  lane);
}

static void lose(struct repair *r, uint32_t lane, uint32_t index, const struct gap *g,
                 const struct pm_lane_entry *before, const struct pm_lane_entry *after)
{
    struct pm_lane_entry *ring = recovery_ring(&r->manager, lane);
    struct pm_lane_entry done = {.lsn = g->above + 1, .op = LANE_OP_DONE};
    const char *loss = "every change of the lane stands on the media, so nothing of it is lost";
    if (before != NULL && is_alloc(before))
        loss = "it was the end of an allocation, so nothing is lost";
    else if (!all_stand(r, ring)) {
        if (has_big_segments(r, lane)) { /* later changes of the same leaf may have used slots that it gave up */
            repair_refuse(r,
                          POOL_FILE_NAME ": lane %u entry %u is lost, and with it maybe a change of a block index; "
                                         "restore the pool from a backup",
                          lane, index);
            return;
        }
        bool no_allocation = after != NULL && after->op != LANE_OP_DONE;
        loss = no_allocation ? "it was no allocation; a block that it freed may stay allocated"
                             : "it may have been an allocation; blocks that may be it are made used";
        if (!no_allocation && r->seal[lane] != 0) { /* a slab may have got several blocks */
            refuse_lane(r, lane);
            return;
        }
        if (!no_allocation)
            r->seal[lane] = g->below;
    }
    done.checksum = lane_entry_checksum(&done);
    repair_patch(r, &ring[index], &done, sizeof done);
    r->entries_fixed++;
    repair_did(r, POOL_FILE_NAME ": lane %u entry %u was lost; %s", lane, index, loss);
}

/* The nearest good entry below (or above) index in ring order, inside the part that was written. */
static const struct pm_lane_entry *neighbour(const struct pm_lane_entry *ring, uint32_t entries, uint32_t newest,
                                             uint32_t written, uint32_t back, int step, uint32_t *ret_distance)
{
    for (uint32_t d = 1;; d++) {
        int64_t at = (int64_t)back - (int64_t)d * step; /* back: how far from the newest */
        if (at < 0 || at >= written)
            return NULL;
        const struct pm_lane_entry *e = &ring[(newest + entries - (uint32_t)at) & (entries - 1)];
        *ret_distance = d;
        if (lane_entry_is_valid(e))
            return e;
    }
}

static void fix_entry(struct repair *r, uint32_t lane, uint32_t newest, uint32_t written, uint32_t back, uint64_t above)
{
    uint32_t entries = r->manager.geometry.lane_entries, index = (newest + entries - back) & (entries - 1);
    struct pm_lane_entry *ring = recovery_ring(&r->manager, lane), e = ring[index];
    uint32_t to_before = 0, to_after = 0;
    const struct pm_lane_entry *before = neighbour(ring, entries, newest, written, back, -1, &to_before);
    const struct pm_lane_entry *after = neighbour(ring, entries, newest, written, back, 1, &to_after);
    struct gap g = {above, after != NULL ? after->lsn : UINT64_MAX};
    if (before != NULL && before->lsn > g.above)
        g.above = before->lsn;
    if (before == NULL && after != NULL) /* the oldest */
        g.above = g.below > LSN_TRIES ? g.below - LSN_TRIES : 0;
    if (restore(r, &e, &g)) {
        repair_patch(r, &ring[index], &e, sizeof e);
        r->entries_fixed++;
        repair_did(r, POOL_FILE_NAME ": lane %u entry %u had a damaged word, which was restored", lane, index);
        return;
    }
    g.above += to_before > 1 ? to_before - 1 : 0;
    if (before == NULL) /* the oldest: any number below will do, but its own elders need theirs */
        g.above = g.below > written ? g.below - written : 0;
    if (g.above + 1 >= g.below) {
        repair_refuse(r, POOL_FILE_NAME ": lane %u entry %u is lost and its neighbours contradict each other", lane,
                      index);
        return;
    }
    lose(r, lane, index, &g, to_before == 1 ? before : NULL, to_after == 1 ? after : NULL);
}

/* Entries that were written: all, unless most of those after the newest are empty. */
static uint32_t written_of(const struct pm_lane_entry *ring, uint32_t entries, uint32_t newest)
{
    uint32_t after = entries - 1 - newest, empty = 0;
    for (uint32_t i = newest + 1; i < entries; i++)
        empty += lane_entry_is_empty(&ring[i]);
    if (after == 0)
        return entries;
    bool round = after == 1 ? !lane_entry_is_empty(&ring[entries - 1]) && lane_entry_is_valid(&ring[entries - 1])
                            : empty <= after / 2;
    return round ? entries : newest + 1;
}

static void clear_unwritten(struct repair *r, uint32_t lane, uint32_t from)
{
    struct pm_lane_entry *ring = recovery_ring(&r->manager, lane), empty = {0};
    for (uint32_t i = from; i < r->manager.geometry.lane_entries; i++)
        if (!lane_entry_is_empty(&ring[i])) {
            repair_patch(r, &ring[i], &empty, sizeof empty);
            repair_did(r, POOL_FILE_NAME ": lane %u entry %u, never written, was not empty; cleared", lane, i);
        }
}

static void fix_ring(struct repair *r, uint32_t lane)
{
    struct pm_lane_entry *ring = recovery_ring(&r->manager, lane);
    uint32_t entries = r->manager.geometry.lane_entries, newest = entries;
    uint64_t lsn = 0;
    for (uint32_t i = 0; i < entries; i++)
        if (ring[i].lsn > lsn && lane_entry_is_valid(&ring[i])) {
            lsn = ring[i].lsn;
            newest = i;
        }
    bool lost = too_many(r, lane);
    if (lost || (newest == entries && end_is_lost(ring, entries, entries - 1, false))) {
        refuse_lane(r, lane);
        return;
    }
    if (newest == entries) {
        clear_unwritten(r, lane, 1);
        return;
    }
    uint32_t written = written_of(ring, entries, newest);
    if (end_is_lost(ring, entries, newest, written == entries)) {
        refuse_lane(r, lane);
        return;
    }
    if (written < entries)
        clear_unwritten(r, lane, newest + 2);
    /* The oldest first, so that those that are found or replaced are the next ones' neighbours. The oldest of a ring that went round
     * may be torn by the append that a crash cut off. */
    uint64_t above = 0;
    for (uint32_t back = written - (written == entries ? 1 : 0); back-- > 0;) {
        const struct pm_lane_entry *e = &ring[(newest + entries - back) & (entries - 1)];
        if (!lane_entry_is_valid(e) || e->lsn <= above)
            fix_entry(r, lane, newest, written, back, above);
        if (e->lsn > above)
            above = e->lsn;
    }
}

void repair_lanes(struct repair *r)
{
    struct lane_scan scan;
    const struct pm_superblock *g = &r->manager.geometry;
    for (uint32_t lane = 0; r->failed == 0 && lane < g->lanes; lane++) {
        struct pm_lane_entry *ring = recovery_ring(&r->manager, lane);
        if (lane_scan(ring, g->lane_entries, lane, &scan) != 0)
            fix_ring(r, lane);
        if (lane_scan(ring, g->lane_entries, lane, &scan) != 0)
            repair_refuse(r, "%s", pa_errormsg());
        else if (scan.lsn > r->lsn)
            r->lsn = scan.lsn;
    }
    r->lanes_lsn = r->lsn;
}

/* A line's LSN above every lane's would shut out the next changes of that line. The newest entry of a lane that is DONE, or the first of
 * a lane that was never used, takes the number. */
void repair_raise_lsn(struct repair *r, uint64_t lsn)
{
    const struct pm_superblock *g = &r->manager.geometry;
    struct lane_scan scan;
    if (lsn <= r->lsn)
        return;
    for (uint32_t lane = 0; lane < g->lanes; lane++) {
        struct pm_lane_entry *ring = recovery_ring(&r->manager, lane);
        if (lane_scan(ring, g->lane_entries, lane, &scan) != 0)
            continue;
        uint32_t index = scan.valid == 0 ? 0 : scan.newest;
        if (scan.valid != 0 && ring[index].op != LANE_OP_DONE)
            continue;
        struct pm_lane_entry done = {.lsn = lsn, .op = LANE_OP_DONE};
        done.checksum = lane_entry_checksum(&done);
        repair_patch(r, &ring[index], &done, sizeof done);
        repair_did(r, POOL_FILE_NAME ": lane %u goes on above LSN %llu, which a line on the media has", lane,
                   (unsigned long long)lsn);
        r->lsn = lsn;
        return;
    }
    repair_refuse(r,
                  "lines on the media have higher numbers than the lanes, and every lane has an operation in flight");
}
