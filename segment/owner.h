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

#endif
