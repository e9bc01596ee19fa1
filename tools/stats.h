/* SPDX-License-Identifier: BSD-3-Clause */
/* stats.h -- the pool's statistics as JSON, for stats and map. */
#ifndef TOOLS_STATS_H
#define TOOLS_STATS_H

#include <jansson.h>
#include <pallocator.h>

json_t *stats_json(const pa_stats *s);

#endif
