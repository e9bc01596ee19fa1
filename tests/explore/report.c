/* SPDX-License-Identifier: BSD-3-Clause */
/* report.c -- tables, JSON and the progress bar. See explore.h. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/explore/explore.h"

void report_add(struct row *row, const struct run_result *r)
{
    row->ops += r->ops;
    row->events += r->events;
    row->points += r->points;
    row->offered += r->offered;
    row->judged += r->judged;
    row->nested += r->nested;
    row->filled += r->filled;
    row->violations += r->violations;
    row->seconds += r->seconds;
    row->runs++;
}

void report_failures(const struct scenario *s, const struct run_result *r)
{
    for (uint32_t i = 0; i < r->failures_count; i++) {
        const struct failure *f = &r->failures[i];
        printf("VIOLATION in %s: %s\n    id      %s\n", s->name, f->why, f->id);
        if (f->minimal[0] != '\0')
            printf("    minimal %s\n", f->minimal);
        printf("%s", f->detail);
    }
    if (r->violations > r->failures_count)
        printf("    (%" PRIu64 " violations in %s, %u kinds shown)\n", r->violations, s->name, r->failures_count);
    fflush(stdout);
}

static double per_second(uint64_t states, double seconds)
{
    return seconds > 0 ? (double)states / seconds : 0;
}

static void print_row(const char *name, const struct row *row)
{
    printf("%-24s %6" PRIu64 " %8" PRIu64 " %8" PRIu64 " %10" PRIu64 " %10" PRIu64 " %9" PRIu64 " %7" PRIu64
           " %8.0f %6" PRIu64 "\n",
           name, row->ops, row->events, row->points, row->offered, row->judged, row->nested, row->filled,
           per_second(row->judged, row->seconds), row->violations);
}

void report_table(const struct row *rows, unsigned count)
{
    struct row sum = {0};
    printf("%-24s %6s %8s %8s %10s %10s %9s %7s %8s %6s\n", "scenario", "ops", "events", "points", "states", "distinct",
           "in recov.", "filled", "states/s", "bad");
    for (unsigned i = 0; i < count; i++) {
        print_row(rows[i].scenario->name, &rows[i]);
        sum.ops += rows[i].ops;
        sum.events += rows[i].events;
        sum.points += rows[i].points;
        sum.offered += rows[i].offered;
        sum.judged += rows[i].judged;
        sum.nested += rows[i].nested;
        sum.filled += rows[i].filled;
        sum.violations += rows[i].violations;
        sum.seconds += rows[i].seconds;
    }
    print_row("total", &sum);
    printf("%.1f s. states = looked at; distinct = opened and judged; in recov. = of these, a second crash inside the "
           "recovery\n",
           sum.seconds);
}

void report_sites(const struct sites *sites)
{
    printf("%-28s %-10s %8s %10s\n", "site", "kind", "points", "states");
    for (uint32_t i = 0; i < sites->count; i++)
        printf("%-28s %-10s %8" PRIu64 " %10" PRIu64 "\n", sites->at[i].name, trace_kind_name(sites->at[i].kind),
               sites->at[i].points, sites->at[i].states);
}

static json_t *row_json(const struct row *row)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I}", "scenario", row->scenario->name,
                     "operations", (json_int_t)row->ops, "events", (json_int_t)row->events, "points",
                     (json_int_t)row->points, "states", (json_int_t)row->offered, "distinct", (json_int_t)row->judged,
                     "in_recovery", (json_int_t)row->nested, "filled", (json_int_t)row->filled, "seconds", row->seconds,
                     "states_per_second", per_second(row->judged, row->seconds), "violations",
                     (json_int_t)row->violations);
}

static json_t *steps_json(const struct sites *sites)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < sites->steps_count; i++) {
        const struct step *step = &sites->steps[i];
        const struct site *site = &sites->at[step->site];
        char entry[32], word[32];
        step_entry_name(step->entry, entry, sizeof entry);
        step_word_name(step->word, word, sizeof word);
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:I}", "site", site->name, "kind",
                                             trace_kind_name(site->kind), "entry", entry, "word", word, "judged",
                                             (step->entry & STEP_ENTRY_JUDGED) != 0, "points", (json_int_t)step->points,
                                             "states", (json_int_t)step->states));
    }
    return all;
}

int report_json(const char *path, const struct row *rows, unsigned count, const struct sites *sites)
{
    json_t *scenarios_json = json_array(), *sites_json = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(scenarios_json, row_json(&rows[i]));
    for (uint32_t i = 0; i < sites->count; i++)
        json_array_append_new(sites_json,
                              json_pack("{s:s, s:s, s:I, s:I}", "site", sites->at[i].name, "kind",
                                        trace_kind_name(sites->at[i].kind), "points", (json_int_t)sites->at[i].points,
                                        "states", (json_int_t)sites->at[i].states));
    json_t *all =
        json_pack("{s:o, s:o, s:o}", "scenarios", scenarios_json, "sites", sites_json, "steps", steps_json(sites));
    int result =
        strcmp(path, "-") == 0 ? json_dumpf(all, stdout, JSON_INDENT(1)) : json_dump_file(all, path, JSON_INDENT(1));
    json_decref(all);
    return result;
}

void report_progress(const char *what, double done, uint64_t states, uint64_t violations)
{
    if (!isatty(STDERR_FILENO))
        return;
    if (done < 0) {
        fprintf(stderr, "\r\033[K");
        return;
    }
    char bar[25];
    int filled = (int)(done * 24 + 0.5);
    for (int i = 0; i < 24; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[24] = '\0';
    fprintf(stderr, "\r\033[K%-22.22s [%s] %3.0f %% %" PRIu64 " states, %" PRIu64 " violations", what, bar, done * 100,
            states, violations);
    fflush(stderr);
}
