/* SPDX-License-Identifier: BSD-3-Clause */
/* range.h -- address ranges that pools are mapped into: how large, where, and what becomes of them. For pmem/file.c. */
#ifndef PMEM_RANGE_H
#define PMEM_RANGE_H

#include <libpmem2.h>
#include <stdint.h>

/** Reserve want bytes, or half of it, a quarter...: what leaves the process as much again, and twice as much if there are other pools.
 *  If that is hardly more than need, what can be had, at least need. Sizes are multiples of alignment. The range begins at a multiple
 *  of DIR_BASE_ALIGNMENT if that can be had. NULL: there is no such range, or no memory. */
struct pmem2_vm_reservation *range_new(uint64_t want, uint64_t need, uint64_t alignment);
/** Give a range back, with nothing mapped in it. It is kept for the next pool that wants as much, or deleted. */
void range_keep(struct pmem2_vm_reservation *range);

#endif
