/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * recovery.h -- open after any crash: replay the lanes. What is in segments is not looked at here; its owner reads it when
 * it is first needed, so the time does not depend on how much is allocated.
 */
#ifndef RECOVERY_RECOVERY_H
#define RECOVERY_RECOVERY_H

#include "log/lane.h"
#include "segment/segment.h"

/** Replay all lanes of the pool file. is_leaf: does a leaf of a block index stand there? ret_next[lane] gets the ring index that each
 *  goes on at, *ret_lsn the highest LSN in the pool. Durable on return. PA_ECORRUPT, PA_ENOMEM. */
int recovery_run(struct manager *m, struct media_tally *t, bool (*is_leaf)(const struct manager *m, pa_off leaf),
                 uint32_t *ret_next, uint64_t *ret_lsn);
/** The ring of a lane on media. */
struct pm_lane_entry *recovery_ring(const struct manager *m, uint32_t lane);

#endif
