/* SPDX-License-Identifier: BSD-3-Clause */
/* big_private.h -- steps that the files of this folder share. */
#ifndef BIG_BIG_PRIVATE_H
#define BIG_BIG_PRIVATE_H

#include "big/big.h"

/** Data pages of a segment. */
uint32_t big_segment_pages(const struct manager *m);
/** Add a change by its role; the entry's block and page numbers are set. */
void big_plan(struct big_entry *b, enum big_role role);
/** Add the removal of a key. */
void big_plan_remove(struct big_entry *b, uint64_t key);
/** Pages of the used block at off, by the index, which is read if it was not; PA_EINVAL if there is none. */
int big_find_used(struct big *o, pa_off off, uint32_t *ret_pages);
int big_prepare(struct big *o, struct big_entry *b, struct media_tally *t);
void big_apply(struct big *o, struct big_entry *b, uint64_t lsn, struct media_tally *t);

#endif
