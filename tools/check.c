/* SPDX-License-Identifier: BSD-3-Clause */
/* check.c -- pallocator check: is the pool sound? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/progress.h"
#include "tools/tool.h"

#define NOTE "note: "

/* Split the report: findings and notes. The closing line of a sound pool is neither. */
static json_t *report_json(const struct tool *t, int code, char *report)
{
    json_t *findings = json_array(), *notes = json_array();
    char *rest = NULL;
    for (char *line = strtok_r(report, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, NOTE, strlen(NOTE)) == 0)
            json_array_append_new(notes, json_string(line + strlen(NOTE)));
        else if (code != 0)
            json_array_append_new(findings, json_string(line));
    }
    return json_pack("{s:b, s:s, s:b, s:o, s:o}", "ok", 1, "dir", t->dir, "sound", code == 0, "findings", findings,
                     "notes", notes);
}

/* Only PA_ECORRUPT is about the pool; anything else kept the check from being made. */
static int check(const struct tool *t)
{
    struct progress progress = {.label = "checking"};
    char *report = NULL;
    progress_start(&progress);
    int code = pa_check(t->dir, &report);
    progress_stop(&progress);
    int result = code == 0 ? TOOL_OK : TOOL_UNSOUND;
    if (code != 0 && code != PA_ECORRUPT)
        result = tool_fail(t, code);
    else if (t->json)
        tool_print(report_json(t, code, report != NULL ? report : (char[]){""}));
    else
        fputs(report != NULL ? report : "", stdout);
    free(report);
    return result;
}

int check_main(int argc, const char **argv)
{
    struct poptOption options[] = {POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK)
        result = check(&t);
    tool_end(&t);
    return result;
}
