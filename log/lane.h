/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lane.h -- the failure-atomic primitive: one redo log per core.
 *
 * Glossary. Entry: what an operation will do, in one line. LSN: its number; every metadata line carries the LSN of the last
 * entry it reflects (as pages do in ARIES, Mohan et al., TODS 1992). Touched line: a metadata line that was changed in place
 * under an entry and not yet written back.
 *
 * Invariants (the crash explorer checks all of them; lane_is_valid, what DRAM alone shows):
 *  1. LSNs ascend along the ring; the entry after the newest is the oldest.
 *  2. Every touched line is in the list of a quarter whose entries are still in the ring.
 *  3. Before an entry is overwritten, every line it changed is durable with an LSN at least the entry's.
 *  4. Only the newest entry's owner pointer may be unfinished, and only if it is not a DONE entry.
 * So recovery is: for each entry in LSN order, redo it on lines that are older; then finish the newest entry's owner pointer.
 * There is no undo, no tail pointer, and no write-back of metadata per operation.
 *
 * A lane is used under its core's lock.
 */
#ifndef LOG_LANE_H
#define LOG_LANE_H

#include "base/lock.h"
#include "log/lane_layout.h"
#include "pmem/media.h"

#define LANE_QUARTERS        4u
#define LANE_ENTRIES_MIN     16u
#define LANE_ENTRIES_MAX     65536u
#define LANE_ENTRIES_DEFAULT 1024u
/* Higher numbers are damage: no pool lives long enough to count so far, and counting on must not overflow. */
#define LANE_LSN_MAX (UINT64_C(1) << 62)

/** The touched lines of one quarter of the ring. */
struct lane_touched {
    void **lines;
    uint32_t count, capacity;
};

struct lane {
    const struct media *media;
    struct pm_lane_entry *ring;
    uint32_t entries; /* power of two */
    uint32_t next;    /* ring index that the next entry is written to */
    uint64_t lsn;     /* of the newest entry */
    uint32_t memo;    /* stamp of the current quarter's pass; never 0 */
    struct lane_touched touched[LANE_QUARTERS];
};

/** One allocator object's lock, lane and counters, shared by the allocators of a core. */
struct core {
    struct lock lock; /* LOCK_RANK_CORE; guards all of the core's objects */
    struct lane lane;
    struct media_tally tally; /* since open */
    unsigned index;
    struct lock staging; /* LOCK_RANK_STAGING; guards the staging owner of the core's line */
} __attribute__((aligned(128)));

/** Make ready for use an all-zero or recovered ring whose newest entry stands before index next. PA_ENOMEM. */
int lane_init(struct lane *l, const struct media *m, struct pm_lane_entry *ring, uint32_t entries, uint32_t next,
              uint64_t lsn);
void lane_fini(struct lane *l);

/** Number e and write it to the ring. Committed after the fence that follows, which the caller makes by lane_commit (so that it
 *  can also cover other lines). First makes room, which costs a fence each quarter of the ring. */
void lane_append(struct lane *l, struct media_tally *t, struct pm_lane_entry *e);
/** Fence: what was appended is committed. */
static inline void lane_commit(struct lane *l, struct media_tally *t)
{
    media_drain(l->media, t);
}
/** Append a DONE entry and fence: the newest entry's owner pointer is no longer redone. */
void lane_done(struct lane *l, struct media_tally *t);
/** Note that a metadata line was changed in place under the newest entry. memo: the line's DRAM word, 0 at first. */
void lane_touch(struct lane *l, struct media_tally *t, void *line, uint32_t *memo);
/** Write back every touched line and close with a DONE entry: the ring is no longer needed for anything. */
void lane_settle(struct lane *l, struct media_tally *t);
/** Take over lines that another lane has numbered up to lsn: later entries get higher numbers. */
static inline void lane_raise(struct lane *l, uint64_t lsn)
{
    if (l->lsn < lsn)
        l->lsn = lsn;
}

/** What a ring on media holds. */
struct lane_scan {
    uint32_t newest; /* ring index of the newest valid entry */
    uint32_t valid;  /* entries from the oldest to the newest; 0 = empty */
    uint64_t lsn;    /* of the newest */
};
/** Read a ring. PA_ECORRUPT (with a sentence that names lane number `number`) if it breaks invariant 1 in a way that no crash can. */
int lane_scan(const struct pm_lane_entry *ring, uint32_t entries, unsigned number, struct lane_scan *ret);
/** The i-th oldest entry (0 .. valid - 1) of a scanned ring. */
static inline const struct pm_lane_entry *lane_scan_entry(const struct pm_lane_entry *ring, uint32_t entries,
                                                          const struct lane_scan *s, uint32_t i)
{
    return &ring[(s->newest + entries + 1 - s->valid + i) & (entries - 1)];
}
/** Committed: numbered, a known operation, and the checksum fits. */
bool lane_entry_is_valid(const struct pm_lane_entry *e);
/** The sentence about an entry that recovery cannot follow; PA_ECORRUPT. */
int lane_refuse_entry(const struct pm_lane_entry *e, unsigned lane, const char *what);
/** Never written. */
bool lane_entry_is_empty(const struct pm_lane_entry *e);
/** What the checksum has to be. */
uint64_t lane_entry_checksum(const struct pm_lane_entry *e);
bool lane_is_valid(const struct lane *l);

#endif
