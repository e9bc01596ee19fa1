/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mutate.c -- the proof that the explorer can see: leave out every flush, fence, non-temporal store and file sync in turn, and
 * move each behind what should follow it (recorder_is_swapped_with). Each mutant must be caught; a survivor is either redundant
 * in the library or a blind spot of the scenarios.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/explore/explore.h"

#define BASELINE_STATES 1000u

/* States per scenario, unless the command line bounds them. */
#define FIRST_LOOK_STATES 400u
#define SHORT_LOOK_STATES 3000u
#define LONG_LOOK_STATES  60000u
#define LATE_MAX          4   /* a late mutant that nobody notices is moved further, so often */
#define NEAR_EVENTS       60u /* the short look goes so far from what is missing */

struct mutant {
    int site;
    int late;                         /* 0: left out; else how far it was moved in the end */
    const struct scenario *caught_by; /* NULL: survived */
    uint64_t states;
    double seconds;
    char why[WHY_BYTES];
};

static bool can_be_left_out(const struct site *s)
{
    return s->kind == TRACE_FLUSH || s->kind == TRACE_DRAIN || s->kind == TRACE_STORE_NT || s->kind == TRACE_SYNC ||
           s->kind == TRACE_SYNC_DIR;
}

/* Every scenario once as it is: which sites it passes, and that it is sound. */
static int baseline(const struct selection *chosen, struct sites *sites, const struct run_options *o, uint64_t *events)
{
    struct run_result *r = run_result_new();
    struct run_options once = *o;
    once.max_states = BASELINE_STATES;
    once.max_seconds = 0;
    for (unsigned i = 0; i < chosen->count; i++) {
        run_scenario(chosen->at[i], i, sites, &once, r, NULL, NULL);
        events[i] = r->events;
        if (r->violations > 0) {
            printf("%s is not sound even with everything in place:\n", chosen->at[i]->name);
            report_failures(chosen->at[i], r);
            return -1;
        }
    }
    return 0;
}

/* The scenarios' own stores are not what is tested. */
static bool is_of_the_library(const struct site *s)
{
    return strncmp(s->name, "scenarios_", 10) != 0 && strncmp(s->name, "poolside", 8) != 0;
}

/* Run the scenarios that pass the site, up to the first violation. */
static void hunt(struct mutant *m, uint64_t passed, const struct selection *chosen, const unsigned *order,
                 struct sites *sites, const struct run_options *o, double deadline, struct run_result *r)
{
    unsigned to_come = (unsigned)__builtin_popcountll(passed);
    sites->mutant = m->site;
    sites->late = m->late;
    for (unsigned k = 0; k < chosen->count && m->caught_by == NULL && !interrupted_by_signal(NULL); k++) {
        unsigned i = order[k];
        double left = deadline - now_seconds();
        if ((passed >> (i % 64) & 1) == 0)
            continue;
        if (deadline > 0 && left <= 0)
            break;
        struct run_options bounded = *o;
        double share = 2 * left / to_come--;
        if (deadline > 0 && (o->max_seconds == 0 || o->max_seconds > share))
            bounded.max_seconds = share < left ? share : left;
        run_scenario(chosen->at[i], i, sites, &bounded, r, interrupted_by_signal, NULL);
        m->states += r->judged;
        m->seconds += r->seconds;
        if (r->violations == 0)
            continue;
        m->caught_by = chosen->at[i];
        snprintf(m->why, sizeof m->why, "%s", r->failures[0].why);
    }
    sites->mutant = -1;
    sites->late = 0;
}

/* Most mutants are found near what is missing: a first look into every scenario, so that none has to wait for the others, then by one
 * crash, then by crashes in recovery too, then everything. What only recovery does can only be missed by a crash inside it. */
static void try_mutant(struct mutant *m, const struct selection *chosen, const unsigned *order, struct sites *sites,
                       const struct run_options *o, double seconds, struct run_result *r)
{
    bool in_history = (sites->at[m->site].seen & SITE_SEEN_HISTORY) != 0;
    struct run_options first = *o;
    first.max_failures = 1;
    first.near_skip = NEAR_EVENTS;
    first.max_states = FIRST_LOOK_STATES;
    if (!in_history)
        first.nested_every = 1;
    if ((sites->at[m->site].seen & SITE_SEEN_RECOVERY) != 0)
        first.limits.kills = 1; /* often it is only what a killed process left that recovery writes back */
    struct run_options one_crash = first, short_look = first, long_look = first;
    short_look.max_states = one_crash.max_states = SHORT_LOOK_STATES;
    one_crash.depth = 1;
    one_crash.limits.kills = 0;
    long_look.max_states = o->max_states != 0 ? o->max_states : LONG_LOOK_STATES;
    long_look.near_skip = 0;
    long_look.limits.kills = 1;

    const struct run_options *const looks[] = {&first, in_history ? &one_crash : NULL, &short_look, &long_look};
    uint64_t passed = sites->at[m->site].scenarios;
    double deadline = seconds > 0 ? now_seconds() + seconds : 0;
    for (unsigned i = 0; i < sizeof looks / sizeof *looks && m->caught_by == NULL; i++)
        if (looks[i] != NULL)
            hunt(m, passed, chosen, order, sites, looks[i], deadline, r);
}

/* An exchange that does no harm is followed by one over a longer distance: somewhere the order matters. */
static void try_late(struct mutant *m, const struct selection *chosen, const unsigned *order, struct sites *sites,
                     const struct run_options *o, double seconds, struct run_result *r)
{
    for (m->late = 1; m->caught_by == NULL && m->late <= LATE_MAX && !interrupted_by_signal(NULL); m->late++)
        try_mutant(m, chosen, order, sites, o, m->late < LATE_MAX ? seconds / 4 : seconds, r);
    m->late--;
}

/* What has caught a neighbour catches the next one too, as a rule. */
static void move_to_front(unsigned *order, const struct selection *chosen, const struct scenario *s)
{
    unsigned k = 0;
    while (k < chosen->count && chosen->at[order[k]] != s)
        k++;
    if (k == chosen->count)
        return;
    unsigned first = order[k];
    memmove(order + 1, order, k * sizeof *order);
    order[0] = first;
}

/* Short histories first: they catch most mutants soonest. */
static void order_by_events(const struct selection *chosen, const uint64_t *events, unsigned *order)
{
    for (unsigned i = 0; i < chosen->count; i++) {
        unsigned k = i;
        for (; k > 0 && events[order[k - 1]] > events[i]; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

static const char *change_name(const struct mutant *m)
{
    static const char *const names[] = {"left out", "late", "later 2", "later 3", "later 4"};
    return names[m->late];
}

static void print_mutant(const struct sites *sites, const struct mutant *m)
{
    const struct site *s = &sites->at[m->site];
    printf("%-28s %-9s %-9s %-22s %8" PRIu64 " %6.1f  %.70s\n", s->name, trace_kind_name(s->kind), change_name(m),
           m->caught_by != NULL ? m->caught_by->name : "SURVIVED", m->states, m->seconds, m->why);
    fflush(stdout);
}

static int write_json(const char *path, const struct sites *sites, const struct mutant *mutants, unsigned count)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < count; i++) {
        const struct site *s = &sites->at[mutants[i].site];
        const char *caught = mutants[i].caught_by == NULL ? NULL : mutants[i].caught_by->name;
        json_array_append_new(all, json_pack("{s:s, s:s, s:i, s:s?, s:I, s:s}", "site", s->name, "kind",
                                             trace_kind_name(s->kind), "late", mutants[i].late, "caught_by", caught,
                                             "states", (json_int_t)mutants[i].states, "why", mutants[i].why));
    }
    int result =
        strcmp(path, "-") == 0 ? json_dumpf(all, stdout, JSON_INDENT(1)) : json_dump_file(all, path, JSON_INDENT(1));
    json_decref(all);
    return result;
}

/* "file.c:12/flush" */
static void format_place(const struct site *s, char *text, size_t size)
{
    snprintf(text, size, "%s/%s", s->name, trace_kind_name(s->kind));
}

static bool is_wanted(const struct site *s, const char *list)
{
    char place[SITE_NAME_BYTES + 16];
    format_place(s, place, sizeof place);
    for (const char *at = list; at != NULL && *at != '\0';) {
        size_t n = strcspn(at, ",");
        if (n > 0 && strncmp(place, at, n) == 0)
            return true;
        at += n + (at[n] == ',');
    }
    return list == NULL;
}

static int by_place(const void *a, const void *b, void *sites)
{
    char x[SITE_NAME_BYTES + 16], y[SITE_NAME_BYTES + 16];
    format_place(&((const struct sites *)sites)->at[*(const int *)a], x, sizeof x);
    format_place(&((const struct sites *)sites)->at[*(const int *)b], y, sizeof y);
    return strcmp(x, y);
}

/* The mutants of this run, of each place two. Places are numbered by name, so that the parts of a run complete one another, and
 * neighbours, which the same scenario notices, follow each other. */
static unsigned choose_mutants(struct sites *sites, const struct mutate_options *m, struct mutant *mutants)
{
    int places[SITES_MAX];
    unsigned count = 0, numbers = 0;
    for (uint32_t i = 0; i < sites->count; i++)
        if (can_be_left_out(&sites->at[i]) && is_of_the_library(&sites->at[i]) && is_wanted(&sites->at[i], m->places))
            places[numbers++] = (int)i;
    qsort_r(places, numbers, sizeof *places, by_place, sites);
    for (unsigned i = m->part; i < numbers; i += m->parts) {
        mutants[count++] = (struct mutant){.site = places[i]};
        mutants[count++] = (struct mutant){.site = places[i], .late = 1};
    }
    return count;
}

int mutate(const struct selection *chosen, struct sites *sites, const struct run_options *o,
           const struct mutate_options *how)
{
    uint64_t events[64];
    unsigned order[64], survivors = 0;
    if (baseline(chosen, sites, o, events) != 0)
        return -1;
    order_by_events(chosen, events, order);
    struct run_result *r = run_result_new();
    struct mutant *mutants = calloc(2 * (size_t)SITES_MAX, sizeof *mutants);
    if (mutants == NULL)
        return -1;
    unsigned count = choose_mutants(sites, how, mutants);
    if (count == 0) {
        fprintf(stderr, "explore: there is nothing to leave out\n");
        free(mutants);
        return -1;
    }
    printf("%-28s %-9s %-9s %-22s %8s %6s  %s\n", "site", "kind", "is", "caught by", "states", "s", "what it broke");
    for (unsigned i = 0; i < count && !interrupted_by_signal(NULL); i++) {
        if (how->progress)
            report_progress(sites->at[mutants[i].site].name, (double)i / count, i, survivors);
        (mutants[i].late ? try_late : try_mutant)(&mutants[i], chosen, order, sites, o, how->seconds, r);
        report_progress("", -1, 0, 0);
        survivors += mutants[i].caught_by == NULL;
        move_to_front(order, chosen, mutants[i].caught_by);
        print_mutant(sites, &mutants[i]);
    }
    if (interrupted_by_signal(NULL)) {
        free(mutants);
        return -1;
    }
    printf("%u mutants, %u survivors\n", count, survivors);
    bool failed = how->json != NULL && write_json(how->json, sites, mutants, count) != 0;
    if (failed)
        fprintf(stderr, "explore: cannot write the table\n");
    free(mutants);
    return failed ? -1 : (int)survivors;
}
