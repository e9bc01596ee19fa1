/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * owner.h -- changing an owner pointer, the same way in the forward path and in recovery.
 *
 * The two words of a pointer are stored one after the other; a crash may keep only the first. The order is segment, then
 * offset: a half-set or half-null pointer is one that recovery recognises and that no block can have.
 */
#ifndef SEGMENT_OWNER_H
#define SEGMENT_OWNER_H

#include "segment/segment.h"

/** Point *dst at p (or null it) and start the write-back; the caller fences. */
static inline void owner_store(const struct media *m, struct media_tally *t, pa_pptr *dst, pa_pptr p)
{
    media_store64(m, &dst->segment, p.segment);
    media_store64(m, &dst->offset, p.offset);
    media_flush(m, t, dst, sizeof *dst);
}

/** Does *dst name p, or is it p with the segment nulled already? No block has offset 0, none lies in segment 0. */
static inline bool owner_names(const pa_pptr *dst, pa_pptr p)
{
    return dst->offset == p.offset && (dst->segment == p.segment || dst->segment == 0);
}

/** A replacement that waits in a core line's staging owner. */
struct owner_staging {
    pa_pptr *owner;  /* holds the replacement */
    uint16_t number; /* of the core line */
};

/** Tell a free's entry that the owner gets the staged block. */
static inline void owner_staging_note(struct pm_lane_entry *e, const struct owner_staging *staging)
{
    if (staging == NULL)
        return;
    e->flags |= LANE_FLAG_REPLACE;
    e->staging = staging->number;
}

/** The owner part of a free: null *dst, or move the staged block into it. The caller fences. */
static inline void owner_release(const struct media *m, struct media_tally *t, pa_pptr *dst,
                                 const struct owner_staging *staging)
{
    if (__builtin_expect(staging == NULL, 1)) {
        owner_store(m, t, dst, PA_NULL);
        return;
    }
    owner_store(m, t, dst, *staging->owner);
    media_drain(m, t); /* before the staging owner lets go: else a crash loses the replacement */
    owner_store(m, t, staging->owner, PA_NULL);
}

/** Recovery of owner_release for a newest entry that is not DONE; names: what *dst named before. A free that replaces ends
 *  with a DONE entry, so a staging owner that still holds something here holds this operation's block. What is done already
 *  is written back all the same: a killed process leaves it in the cache only. */
static inline void owner_release_redo(const struct media *m, struct media_tally *t, pa_pptr *dst, pa_pptr names,
                                      const struct owner_staging *staging)
{
    if (staging == NULL) {
        if (owner_names(dst, names))
            owner_store(m, t, dst, PA_NULL);
        media_flush(m, t, dst, sizeof *dst);
    } else if (staging->owner->segment != 0) {
        owner_release(m, t, dst, staging);
    } else { /* null, maybe by half: dst had arrived before */
        owner_store(m, t, staging->owner, PA_NULL);
    }
}

#endif
