/* SPDX-License-Identifier: BSD-3-Clause */
/* check.c -- pallocator check: is the pool sound, and can it be made so? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/progress.h"
#include "tools/tool.h"

/* What a line of a report begins with; a line without any of these is a finding of pa_check. */
enum part { PART_FINDINGS, PART_REPAIRED, PART_REFUSED, PART_NOTES, PARTS };
static const char *const part_names[PARTS] = {"findings", "repaired", "refused", "notes"};
static const char *const part_marks[PARTS] = {"found: ", "repaired: ", "refused: ", "note: "};

static void sort_line(json_t *const *parts, const char *line)
{
    for (int i = 0; i < PARTS; i++)
        if (strncmp(line, part_marks[i], strlen(part_marks[i])) == 0) {
            json_array_append_new(parts[i], json_string(line + strlen(part_marks[i])));
            return;
        }
    json_array_append_new(parts[PART_FINDINGS], json_string(line));
}

/* The last line of a sound pool's report says so and is no finding. */
static json_t *report_json(const struct tool *t, bool repair, int code, char *report)
{
    json_t *parts[PARTS];
    for (int i = 0; i < PARTS; i++)
        parts[i] = json_array();
    char *rest = NULL;
    for (char *line = strtok_r(report, "\n", &rest); line != NULL;) {
        char *next = strtok_r(NULL, "\n", &rest);
        if (next != NULL || code != 0 || strncmp(line, part_marks[PART_NOTES], strlen(part_marks[PART_NOTES])) == 0)
            sort_line(parts, line);
        line = next;
    }
    json_t *result = json_pack("{s:b, s:s, s:b}", "ok", 1, "dir", t->dir, "sound", code == 0);
    for (int i = 0; i < PARTS; i++) {
        if (repair || i == PART_FINDINGS || i == PART_NOTES)
            json_object_set(result, part_names[i], parts[i]);
        json_decref(parts[i]);
    }
    return result;
}

/* Only PA_ECORRUPT is about the pool; anything else kept the work from being done. */
static int check(const struct tool *t, bool repair, const char *backup)
{
    struct progress progress = {.label = repair ? "repairing" : "checking"};
    char *report = NULL;
    progress_start(&progress);
    int code = repair ? pa_repair(t->dir, backup, &report) : pa_check(t->dir, &report);
    progress_stop(&progress);
    int result = code == 0 ? TOOL_OK : TOOL_UNSOUND;
    if (code != 0 && code != PA_ECORRUPT)
        result = tool_fail(t, code);
    else if (t->json)
        tool_print(report_json(t, repair, code, report != NULL ? report : (char[]){""}));
    else
        fputs(report != NULL ? report : "", stdout);
    if (code == PA_ECORRUPT && repair)
        fprintf(stderr, "pallocator: %s\n", pa_errormsg());
    else if (code == PA_ECORRUPT)
        fprintf(stderr, "pallocator: the pool is unsound; check --repair %s may mend it\n", t->dir);
    free(report);
    return result;
}

int check_main(int argc, const char **argv)
{
    int repair = 0;
    const char *backup = NULL;
    struct poptOption options[] = {{"repair", 'r', POPT_ARG_NONE, &repair, 0,
                                    "Rebuild what can be rebuilt, or refuse and change nothing", NULL},
                                   {"backup", 'b', POPT_ARG_STRING, &backup, 0,
                                    "Where --repair keeps what it changes, in a new directory (default: in the pool's)",
                                    "DIR"},
                                   POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, true);
    if (result == TOOL_OK && backup != NULL && !repair)
        result = tool_fail_text(&t, "--backup goes with --repair only");
    if (result == TOOL_OK)
        result = check(&t, repair != 0, backup);
    tool_end(&t);
    return result;
}
