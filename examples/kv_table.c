/* SPDX-License-Identifier: BSD-3-Clause */
/* kv_table.c -- puts the results of several runs of the demo side by side: kv-table [--json] RESULT.json... */
#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "examples/kv_report.h"

struct arguments {
    bool json;
    json_t *runs;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    json_error_t e;
    json_t *run;
    switch (key) {
    case 'j':
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        run = json_load_file(arg, 0, &e);
        if (run == NULL)
            argp_failure(state, 2, 0, "%s, line %d: %s", arg, e.line, e.text);
        json_array_append_new(a->runs, run);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {{"json", 'j', NULL, 0, "One JSON object instead of a table", 0}, {0}};
    static const struct argp argp = {options, parse, "RESULT.json...", "Show results of kv --json side by side.", 0,
                                     0,       0};
    struct arguments a = {false, json_array()};
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.json) {
        json_t *all = json_pack("{s:O}", "runs", a.runs);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    } else {
        report_print(stdout, a.runs);
    }
    bool ok = true;
    for (size_t i = 0; i < json_array_size(a.runs); i++)
        ok = ok && json_is_true(json_object_get(json_array_get(a.runs, i), "ok"));
    json_decref(a.runs);
    return ok ? 0 : 1;
}
