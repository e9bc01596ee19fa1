/* SPDX-License-Identifier: BSD-3-Clause */
/* kv_count.h -- fences executed and lines written back by libpmem on behalf of libpmemobj (kv_count.c stands between). */
#ifndef EXAMPLES_KV_COUNT_H
#define EXAMPLES_KV_COUNT_H

#include <stdint.h>

void kv_count(uint64_t *ret_fences, uint64_t *ret_lines);

#endif
