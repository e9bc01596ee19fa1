/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c -- the crash explorer's command line. */
#include <inttypes.h>
#include <popt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/explore/explore.h"

static struct {
    char *scenario, *replay, *without, *json, *dir, *places, *part;
    long long seed, states, rounds;
    double seconds, mutant_seconds;
    int jobs, depth, nested, fill, failures, hang;
    int late, list, mutate, self_test, sites, verbose, quiet, no_shadow, no_kills, brief;
} arguments = {.seed = 1, .rounds = -1, .jobs = 2, .depth = 2};

static const struct poptOption options[] = {
    {"scenario", 's', POPT_ARG_STRING, &arguments.scenario, 0,
     "Only these scenarios (prefixes of names, comma between)", "NAMES"},
    {"list", 'l', POPT_ARG_NONE, &arguments.list, 0, "List the scenarios", NULL},
    {"replay", 'r', POPT_ARG_STRING, &arguments.replay, 0, "Judge the one state that a violation printed", "ID"},
    {"mutate", 'm', POPT_ARG_NONE, &arguments.mutate, 0,
     "Leave out each flush, fence, log write and sync in turn, then move each behind what follows", NULL},
    {"places", 0, POPT_ARG_STRING, &arguments.places, 0,
     "With --mutate: only mutants whose FILE:LINE/KIND begins so (comma between)", "NAMES"},
    {"part", 0, POPT_ARG_STRING, &arguments.part, 0, "With --mutate: the K-th of N parts of the mutants", "K/N"},
    {"mutant-seconds", 0, POPT_ARG_DOUBLE, &arguments.mutant_seconds, 0,
     "With --mutate: give up on a mutant after so long", "S"},
    {"without", 0, POPT_ARG_STRING, &arguments.without, 0, "Run with this one left out", "FILE:LINE/KIND"},
    {"late", 0, POPT_ARG_INT, &arguments.late, 0,
     "With --without: not left out, but moved behind the N-th of what should follow", "N"},
    {"self-test", 0, POPT_ARG_NONE, &arguments.self_test, 0, "Show that the explorer finds each kind of error", NULL},
    {"states", 'n', POPT_ARG_LONGLONG, &arguments.states, 0, "Stop after so many distinct states", "N"},
    {"seconds", 't', POPT_ARG_DOUBLE, &arguments.seconds, 0, "Stop after so long", "S"},
    {"rounds", 0, POPT_ARG_LONGLONG, &arguments.rounds, 0, "Repeat with other seeds (default: until a bound, or once)",
     "N"},
    {"seed", 0, POPT_ARG_LONGLONG, &arguments.seed, 0, "First seed (default 1)", "N"},
    {"jobs", 'j', POPT_ARG_INT, &arguments.jobs, 0, "Worker processes (default 2)", "N"},
    {"depth", 0, POPT_ARG_INT, &arguments.depth, 0, "Power failures in a row, up to 4 (default 2)", "N"},
    {"nested-every", 0, POPT_ARG_INT, &arguments.nested, 0,
     "Crash again in the recovery of one state in N (default 32)", "N"},
    {"fill-every", 0, POPT_ARG_INT, &arguments.fill, 0,
     "Fill and empty the pool of one recovered state in N (default 16)", "N"},
    {"max-failures", 0, POPT_ARG_INT, &arguments.failures, 0, "Stop a scenario after N violations (default 20)", "N"},
    {"hang-seconds", 0, POPT_ARG_INT, &arguments.hang, 0, "A state that takes longer hangs (default 20)", "S"},
    {"sites", 0, POPT_ARG_NONE, &arguments.sites, 0, "Print how often the states were cut at each place", NULL},
    {"json", 0, POPT_ARG_STRING, &arguments.json, 0, "Write the figures to a file, - = standard output", "FILE"},
    {"dir", 'd', POPT_ARG_STRING, &arguments.dir, 0, "Where the scratch directory goes (default /dev/shm)", "DIR"},
    {"no-kills", 0, POPT_ARG_NONE, &arguments.no_kills, 0, "Only power failures, no deaths of the process before them",
     NULL},
    {"brief", 0, POPT_ARG_NONE, &arguments.brief, 0, "Few states at each point, so that all points are soon cut", NULL},
    {"no-shadow", 0, POPT_ARG_NONE, &arguments.no_shadow, 0, "Do not look for stores that were not announced", NULL},
    {"quiet", 'q', POPT_ARG_NONE, &arguments.quiet, 0, "No progress bar", NULL},
    {"verbose", 'v', POPT_ARG_NONE, &arguments.verbose, 0, "Say more", NULL},
    POPT_AUTOHELP POPT_TABLEEND};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

bool interrupted_by_signal(void *unused)
{
    (void)unused;
    return interrupted != 0;
}

static bool named(const struct scenario *s, const char *list)
{
    for (const char *at = list; at != NULL && *at != '\0';) {
        size_t n = strcspn(at, ",");
        if (n > 0 && strncmp(s->name, at, n) == 0)
            return true;
        at += n + (at[n] == ',');
    }
    return false;
}

static void choose(struct selection *chosen)
{
    for (unsigned i = 0; scenarios[i] != NULL; i++) {
        const struct scenario *s = scenarios[i];
        bool wanted =
            arguments.scenario != NULL ? named(s, arguments.scenario) : s->self_test == (arguments.self_test != 0);
        if (wanted && chosen->count < 64)
            chosen->at[chosen->count++] = s;
    }
}

static int list_scenarios(void)
{
    for (unsigned i = 0; scenarios[i] != NULL; i++)
        printf("%-24s %s\n", scenarios[i]->name, scenarios[i]->title);
    return 0;
}

struct progress {
    const char *what;
    const struct run_result *result;
    const struct run_options *o;
    uint64_t states, violations; /* of earlier scenarios */
};

static bool show_progress(void *arg)
{
    const struct progress *p = arg;
    const struct run_result *r = p->result;
    double done = r->points_planned == 0 ? 0 : (double)r->points / (double)r->points_planned;
    if (!arguments.quiet)
        report_progress(p->what, done > 1 ? 1 : done, p->states + r->judged, p->violations + r->violations);
    return interrupted != 0;
}

/* Its share of what is left of a bound. */
static void set_bounds(struct run_options *o, double start, uint64_t states, unsigned left)
{
    if (arguments.seconds > 0) {
        double seconds = arguments.seconds - (now_seconds() - start);
        o->max_seconds = seconds > 0.05 ? seconds / left : 0.05;
    }
    if (arguments.states > 0)
        o->max_states = ((uint64_t)arguments.states - states) / left + 1;
}

static bool bounds_reached(double start, uint64_t states)
{
    return interrupted || (arguments.seconds > 0 && now_seconds() - start >= arguments.seconds) ||
           (arguments.states > 0 && states >= (uint64_t)arguments.states);
}

/* Run everything chosen once; returns the violations. A self-test's broken scenario must be caught. */
static uint64_t run_round(const struct selection *chosen, struct row *rows, struct sites *sites, struct run_options *o,
                          double start, uint64_t *states)
{
    struct run_result *result = run_result_new();
    uint64_t violations = 0;
    for (unsigned i = 0; i < chosen->count && !bounds_reached(start, *states); i++) {
        const struct scenario *s = chosen->at[i];
        struct progress p = {s->name, result, o, *states, violations};
        set_bounds(o, start, *states, chosen->count - i);
        run_scenario(s, i, sites, o, result, show_progress, &p);
        report_progress("", -1, 0, 0);
        report_add(&rows[i], result);
        *states += result->judged;
        if (s->broken && result->violations == 0 && arguments.scenario == NULL)
            printf("NOT FOUND: %s (%s)\n", s->name, s->title);
        if (s->broken && arguments.scenario == NULL) {
            violations += result->violations == 0;
            continue;
        }
        violations += result->violations;
        report_failures(s, result);
    }
    return violations;
}

static int run_all(const struct selection *chosen, struct sites *sites, struct run_options *o)
{
    struct row rows[64];
    memset(rows, 0, sizeof rows);
    for (unsigned i = 0; i < chosen->count; i++)
        rows[i].scenario = chosen->at[i];
    double start = now_seconds();
    uint64_t states = 0, violations = 0;
    bool bounded = arguments.seconds > 0 || arguments.states > 0;
    long long rounds = arguments.rounds > 0 ? arguments.rounds : bounded ? INT64_MAX : 1;
    for (long long round = 0; round < rounds && violations == 0 && !bounds_reached(start, states); round++) {
        violations += run_round(chosen, rows, sites, o, start, &states);
        o->seed++; /* other random steps, other random subsets */
    }
    report_table(rows, chosen->count);
    if (arguments.sites)
        report_sites(sites);
    if (arguments.json != NULL && report_json(arguments.json, rows, chosen->count, sites) != 0)
        return 2;
    return violations > 0 ? 1 : interrupted ? 2 : 0;
}

static int run_mutants(const struct selection *chosen, struct sites *sites, struct run_options *o)
{
    if (arguments.seconds > 0)
        o->max_seconds = arguments.seconds;
    if (arguments.states > 0)
        o->max_states = (uint64_t)arguments.states;
    struct mutate_options m = {.json = arguments.json,
                               .places = arguments.places,
                               .seconds = arguments.mutant_seconds,
                               .parts = 1,
                               .progress = !arguments.quiet};
    if (arguments.part != NULL &&
        (sscanf(arguments.part, "%u/%u", &m.part, &m.parts) != 2 || m.part == 0 || m.part-- > m.parts)) {
        fprintf(stderr, "explore: --part wants K/N, for example 1/2\n");
        return 2;
    }
    int survivors = mutate(chosen, sites, o, &m);
    return survivors < 0 ? 2 : survivors > 0 ? 1 : 0;
}

static void set_options(struct run_options *o, const char *scratch)
{
    run_options_init(o);
    o->dir = scratch;
    o->seed = (uint64_t)arguments.seed;
    o->workers = arguments.jobs < 1 ? 1 : arguments.jobs > (int)WORKERS_MAX ? WORKERS_MAX : (unsigned)arguments.jobs;
    o->depth = arguments.depth < 1 ? 1 : arguments.depth >= (int)DEPTH_MAX ? DEPTH_MAX - 1 : (unsigned)arguments.depth;
    if (arguments.nested > 0)
        o->nested_every = (unsigned)arguments.nested;
    if (arguments.fill > 0)
        o->fill_every = (unsigned)arguments.fill;
    if (arguments.failures > 0)
        o->max_failures = (unsigned)arguments.failures;
    if (arguments.hang > 0)
        o->hang_seconds = (unsigned)arguments.hang;
    if (arguments.no_kills)
        o->limits.kills = o->nested_limits.kills = 0;
    if (arguments.brief)
        run_options_brief(o);
    o->shadow = !arguments.no_shadow;
    o->verbose = arguments.verbose != 0;
}

/* FILE:LINE/KIND */
static bool set_mutant(struct sites *sites, const char *text)
{
    char name[SITE_NAME_BYTES];
    const char *slash = strrchr(text, '/');
    for (int k = 0; slash != NULL && k < TRACE_KINDS; k++) {
        if (strcmp(slash + 1, trace_kind_name(k)) != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(slash - text), text);
        sites->mutant = (int)site_intern(sites, name, k);
        return true;
    }
    fprintf(stderr, "explore: '%s' is not FILE:LINE/KIND, for example lane.c:80/flush\n", text);
    return false;
}

static int work(const char *scratch)
{
    struct run_options o;
    struct selection chosen = {.count = 0};
    struct sites *sites = sites_new();
    set_options(&o, scratch);
    if (arguments.without != NULL && !set_mutant(sites, arguments.without))
        return 2;
    sites->late = arguments.late;
    if (arguments.replay != NULL)
        return replay(arguments.replay, sites, &o);
    choose(&chosen);
    if (chosen.count == 0) {
        fprintf(stderr, "explore: no scenario is called '%s'; --list names them\n", arguments.scenario);
        return 2;
    }
    return arguments.mutate ? run_mutants(&chosen, sites, &o) : run_all(&chosen, sites, &o);
}

int main(int argc, const char **argv)
{
    poptContext context = poptGetContext("explore", argc, argv, options, 0);
    int bad = poptGetNextOpt(context);
    if (bad < -1 || poptPeekArg(context) != NULL) {
        fprintf(stderr, "explore: %s: %s\n", poptBadOption(context, POPT_BADOPTION_NOALIAS),
                bad < -1 ? poptStrerror(bad) : "unexpected argument");
        return 2;
    }
    if (arguments.list)
        return list_scenarios();
    char scratch[128];
    snprintf(scratch, sizeof scratch, "%s/explore.XXXXXX", arguments.dir != NULL ? arguments.dir : "/dev/shm");
    char *whole = mkdtemp(scratch) == NULL ? NULL : realpath(scratch, NULL); /* files of a pool may name their place */
    if (whole == NULL) {
        perror(scratch);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int result = work(whole);
    remove_tree(whole);
    free(whole);
    poptFreeContext(context);
    return result;
}
