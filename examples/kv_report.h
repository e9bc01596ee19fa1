/* SPDX-License-Identifier: BSD-3-Clause */
/* kv_report.h -- the demo's results as a table, one column per run. */
#ifndef EXAMPLES_KV_REPORT_H
#define EXAMPLES_KV_REPORT_H

#include <jansson.h>
#include <stdio.h>

/** Print runs (an array of the objects that kv --json gives; borrowed). */
void report_print(FILE *out, const json_t *runs);

#endif
