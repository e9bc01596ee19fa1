/* SPDX-License-Identifier: BSD-3-Clause */
/* lane.c -- see lane.h. */
#define XXH_INLINE_ALL
#include "log/lane.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/error.h"

#define CHECKSUMMED_BYTES offsetof(struct pm_lane_entry, checksum)

uint64_t lane_entry_checksum(const struct pm_lane_entry *e)
{
    return XXH3_64bits(e, CHECKSUMMED_BYTES);
}

/* Room for this many lines per entry; an entry that formats touches up to eleven, and a full list is written back early. */
#define TOUCHED_PER_ENTRY 2u
#define TOUCHED_MIN       64u

int lane_init(struct lane *l, const struct media *m, struct pm_lane_entry *ring, uint32_t entries, uint32_t next,
              uint64_t lsn)
{
    *l = (struct lane){.media = m, .ring = ring, .entries = entries, .next = next, .lsn = lsn, .memo = 1};
    for (unsigned q = 0; q < LANE_QUARTERS; q++) {
        uint32_t capacity = entries / LANE_QUARTERS * TOUCHED_PER_ENTRY;
        l->touched[q].capacity = capacity < TOUCHED_MIN ? TOUCHED_MIN : capacity;
        l->touched[q].lines = malloc(l->touched[q].capacity * sizeof(void *));
        if (l->touched[q].lines == NULL) {
            lane_fini(l);
            return error_set(PA_ENOMEM, "no memory for a lane's list of touched lines");
        }
    }
    return 0;
}

void lane_fini(struct lane *l)
{
    for (unsigned q = 0; q < LANE_QUARTERS; q++) {
        free(l->touched[q].lines);
        l->touched[q].lines = NULL;
    }
}

/* Start the write-back of a quarter's touched lines; true if there were any. */
static bool touched_flush(struct lane *l, struct media_tally *t, struct lane_touched *touched)
{
    bool any = touched->count != 0;
    for (uint32_t i = 0; i < touched->count; i++)
        media_flush(l->media, t, touched->lines[i], MEDIA_LINE_BYTES);
    touched->count = 0;
    return any;
}

static uint32_t quarter_of(const struct lane *l, uint32_t index)
{
    return index / (l->entries / LANE_QUARTERS);
}

/* The ring enters a quarter: what its old entries changed must be durable before the first of them is overwritten. */
static void enter_quarter(struct lane *l, struct media_tally *t, uint32_t quarter)
{
    if (touched_flush(l, t, &l->touched[quarter]))
        media_drain(l->media, t); /* before the append: else an entry is gone while its line is still old */
    if (++l->memo == 0)
        l->memo = 1;
}

void lane_append(struct lane *l, struct media_tally *t, struct pm_lane_entry *e)
{
    uint32_t per_quarter = l->entries / LANE_QUARTERS;
    if ((l->next & (per_quarter - 1)) == 0)
        enter_quarter(l, t, quarter_of(l, l->next));
    e->lsn = ++l->lsn;
    e->checksum = lane_entry_checksum(e);
    media_copy_line(l->media, t, &l->ring[l->next], e);
    l->next = (l->next + 1) & (l->entries - 1);
}

void lane_done(struct lane *l, struct media_tally *t)
{
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_DONE};
    lane_append(l, t, &e);
    media_drain(l->media, t); /* before the caller may change the owner pointer: else recovery would set it again */
}

static struct lane_touched *current_touched(struct lane *l)
{
    return &l->touched[quarter_of(l, (l->next - 1) & (l->entries - 1))];
}

void lane_touch(struct lane *l, struct media_tally *t, void *line, uint32_t *memo)
{
    if (*memo == l->memo)
        return;
    *memo = l->memo;
    struct lane_touched *touched = current_touched(l);
    if (__builtin_expect(touched->count == touched->capacity, 0)) {
        /* Earlier than needed, which is always allowed: every change in these lines has a committed entry. The lines that
         * stay memoized are touched again only after their present content was noted here, so they are noted anew. */
        touched_flush(l, t, touched);
        media_drain(l->media, t);
        if (++l->memo == 0)
            l->memo = 1;
        *memo = l->memo;
    }
    touched->lines[touched->count++] = line;
}

void lane_settle(struct lane *l, struct media_tally *t)
{
    pa_assert(lane_is_valid(l));
    for (unsigned q = 0; q < LANE_QUARTERS; q++)
        touched_flush(l, t, &l->touched[q]);
    media_drain(l->media, t); /* before DONE: it says that nothing before it is needed */
    if (++l->memo == 0)
        l->memo = 1;
    lane_done(l, t);
}

bool lane_entry_is_empty(const struct pm_lane_entry *e)
{
    const uint64_t *words = (const uint64_t *)e;
    uint64_t any = 0;
    for (unsigned i = 0; i < sizeof *e / sizeof *words; i++)
        any |= words[i];
    return any == 0;
}

bool lane_entry_is_valid(const struct pm_lane_entry *e)
{
    return e->lsn != 0 && e->op > LANE_OP_NONE && e->op < LANE_OP_COUNT && e->checksum == lane_entry_checksum(e);
}

int lane_refuse_entry(const struct pm_lane_entry *e, unsigned lane, const char *what)
{
    return error_set(PA_ECORRUPT, "pool.pa: lane %u, entry with LSN %llu: %s; restore the pool from a backup", lane,
                     (unsigned long long)e->lsn, what);
}

static uint32_t find_newest(const struct pm_lane_entry *ring, uint32_t entries, uint64_t *ret_lsn)
{
    uint32_t newest = entries;
    *ret_lsn = 0;
    for (uint32_t i = 0; i < entries; i++)
        if (ring[i].lsn > *ret_lsn && lane_entry_is_valid(&ring[i])) {
            *ret_lsn = ring[i].lsn;
            newest = i;
        }
    return newest;
}

static int broken_ring(unsigned number, uint32_t index)
{
    return error_set(
        PA_ECORRUPT,
        "pool.pa: lane %u entry %u is damaged; restore the pool from a backup, or have it checked and repaired", number,
        index);
}

int lane_scan(const struct pm_lane_entry *ring, uint32_t entries, unsigned number, struct lane_scan *ret)
{
    struct lane_scan s = {0};
    s.newest = find_newest(ring, entries, &s.lsn);
    if (s.newest == entries) {
        /* Nothing committed yet: only the first entry may hold something, the torn first append. */
        for (uint32_t i = 1; i < entries; i++)
            if (!lane_entry_is_empty(&ring[i]))
                return broken_ring(number, i);
        s.newest = entries - 1;
        *ret = s;
        return 0;
    }
    if (s.lsn > LANE_LSN_MAX)
        return broken_ring(number, s.newest);
    /* Backwards from the newest: valid and descending; then only empty ones; the one after the newest may be torn. */
    uint64_t above = s.lsn + 1;
    bool in_empty = false;
    for (uint32_t back = 0; back < entries; back++) {
        uint32_t index = (s.newest + entries - back) & (entries - 1);
        const struct pm_lane_entry *e = &ring[index];
        if (!in_empty && lane_entry_is_valid(e) && e->lsn < above) {
            above = e->lsn;
            s.valid++;
        } else if (lane_entry_is_empty(e) && (in_empty || index == entries - 1)) {
            in_empty = true;
        } else if (back == entries - 1) {
            break; /* torn by the append that the crash cut off */
        } else {
            return broken_ring(number, index);
        }
    }
    *ret = s;
    return 0;
}

bool lane_is_valid(const struct lane *l)
{
    bool valid = l->next < l->entries && l->memo != 0;
    for (unsigned q = 0; q < LANE_QUARTERS; q++)
        valid = valid && l->touched[q].count <= l->touched[q].capacity;
    return valid;
}
