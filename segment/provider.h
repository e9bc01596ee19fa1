/* SPDX-License-Identifier: BSD-3-Clause */
/* provider.h -- failure-atomic steps on segment files, for the manager only. See segment.c for their step tables. */
#ifndef SEGMENT_PROVIDER_H
#define SEGMENT_PROVIDER_H

#include "segment/segment.h"

struct segment *segment_new(uint32_t slot);
void provider_set_word(struct manager *m, uint32_t slot, uint64_t word);
int provider_create(struct manager *m, struct segment *s, enum segment_kind kind, unsigned owner);
int provider_open(struct manager *m, struct segment *s);
int provider_remove_file(struct manager *m, uint32_t slot);

#endif
