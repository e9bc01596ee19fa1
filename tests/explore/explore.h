/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * explore.h -- runs scenarios: records a history, cuts it at every crash point, judges the legal states there.
 *
 * Processes: the main one starts a runner per scenario; the runner records the history and starts workers, which
 * share the crash points among them. So a library that crashes or hangs on some state is a finding like any other.
 *
 * Crash points: before every fence, write-back and file operation, after every store, and after the end of every operation.
 * They are visited in passes, each coarser pass first, so that a bounded run still looks at all of the history.
 */
#ifndef TESTS_EXPLORE_EXPLORE_H
#define TESTS_EXPLORE_EXPLORE_H

#include "tests/explore/disk.h"
#include "tests/explore/history.h"
#include "tests/explore/state.h"

#define FAILURES_MAX 24u
#define WORKERS_MAX  16u
#define ID_BYTES     (2 * STATE_TEXT_MAX)
#define DETAIL_BYTES 6000u
#define PASSES       8u
#define DEPTH_MAX    5u

struct run_options {
    const char *dir; /* where the scratch directories go */
    unsigned workers;
    unsigned depth; /* 1: power fails once; 2: and again inside the recovery; deaths of the process do not count */
    unsigned nested_every; /* of one state in so many */
    unsigned fill_every;
    unsigned round; /* which random subsets */
    uint64_t seed;
    uint64_t max_states;   /* judged; 0 = no bound */
    double max_seconds;    /* 0 = no bound */
    unsigned max_failures; /* stop the scenario after so many violations */
    unsigned hang_seconds;
    struct state_limits limits, nested_limits;
    unsigned near_skip; /* only points so many events after something that a mutant left out; 0 = all */
    bool shadow;        /* look for stores that were not announced */
    bool verbose;
};
void run_options_init(struct run_options *o);
/** Only nothing and everything at each point: to pass all of the history quickly. */
void run_options_brief(struct run_options *o);

struct failure {
    uint64_t key; /* failures of one kind are kept once */
    char id[ID_BYTES];
    char minimal[ID_BYTES]; /* the same with fewer lines kept; may be empty */
    char why[WHY_BYTES];
    char detail[DETAIL_BYTES]; /* where, and which lines were and were not kept */
};

enum run_phase { RUN_RECORDING, RUN_EXPLORING, RUN_DONE };

/** Results of one scenario; in memory shared by its processes. */
struct run_result {
    uint32_t phase;
    uint64_t ops, events, points, points_planned;
    uint64_t offered; /* states looked at, repeats included */
    uint64_t judged;  /* distinct states */
    uint64_t nested;  /* of these, crashes inside a recovery */
    uint64_t filled;  /* states that were also filled up and emptied */
    uint64_t depth2_recoveries;
    uint64_t violations; /* all, also those not kept below */
    uint32_t failures_count, failures_lock;
    struct failure failures[FAILURES_MAX];
    double seconds;
    bool complete; /* every point was visited */
};

#define SEEN_SLOTS (UINT64_C(1) << 22)

/** What the workers of one runner share. */
struct shared {
    struct run_result *result;
    uint64_t pass, next, left; /* pass in progress, next point of it, workers that have left it */
    uint32_t stop;
    double deadline;
    uint64_t seen[SEEN_SLOTS], sound[SEEN_SLOTS];
    uint64_t seen_count, sound_count;
    struct {
        uint64_t beat;
        char id[ID_BYTES];
    } workers[WORKERS_MAX];
};

struct point {
    size_t event; /* the crash comes before it */
    uint32_t site, step;
    bool has_site;
};

/** One worker's means of looking at a state, per depth of crash. */
struct level {
    struct trace trace;
    struct recorder recorder;
    char code[STATE_TEXT_MAX]; /* of the state in work */
    size_t event;              /* crash point in the trace of the level above */
    uint64_t cells;            /* what the opening found */
    size_t opened;             /* events when it had found it */
};

struct worker {
    const struct run_options *o;
    struct history *history;
    struct shared *shared;
    unsigned number;
    struct disk disk;
    struct image image;
    struct level levels[DEPTH_MAX];
    struct trace again_trace;
    struct recorder again;
    size_t point; /* event of the history */
    uint32_t site, step;
    bool has_site;
    bool quiet; /* while minimising: nothing is counted or reported */
};

/* record.c */
/** Run the scenario in the directory root, which is made and removed; h->problem is set if the run itself fails. */
void history_record(struct history *h, const struct scenario *s, unsigned number, const char *root, struct sites *sites,
                    const struct run_options *o);

/* points.c */
/** The crash points of a trace from event `from` on, ascending; every_store: also after each store. Freed with free(). */
struct point *points_of(const struct trace *t, size_t from, bool every_store, size_t *ret_count);
/** Keep only those within so many events after a place where the mutant left something out. Returns how many are left. */
size_t points_near_skips(const struct trace *t, struct point *points, size_t count, unsigned near);

/* worker.c */
void worker_init(struct worker *w, const struct run_options *o, struct history *h, struct shared *shared,
                 unsigned number, const char *root);
void worker_fini(struct worker *w);
/** Visit the points of a pass that no other worker has taken. */
void worker_pass(struct worker *w, const struct point *points, size_t count, unsigned pass);
/** Judge one state of an image at a depth (0 = the history). Returns true if it is sound. */
bool worker_judge(struct worker *w, unsigned depth, struct image *image, const struct choice *c, struct judge *ret);
/** The moment of the history at which an image stands. */
void worker_set_point(struct worker *w, const struct point *p);
void worker_space(struct worker *w, struct state_space *s, const struct trace *t, unsigned depth, struct image *image,
                  size_t event);
/** The image that the recovery of image + c continues; code: how image + c came about. */
void worker_fork(struct image *child, struct image *image, const struct choice *c, const char *code);
void worker_id(const struct worker *w, unsigned depth, char *id, size_t size);

/* points.c, in words */
/** Which lines a state kept and which it did not, with their sites. */
void explain_choice(const struct image *image, const struct choice *c, const struct trace *t, const struct sites *sites,
                    char *text, size_t size);
/** Where a crash point is. */
void explain_point(const struct trace *t, size_t event, const struct sites *sites, char *text, size_t size);

/* run.c */
/** Run one scenario in processes of its own. number: its bit in struct site. progress is called about ten times a second and
 *  may be NULL; it returns true to stop. */
void run_scenario(const struct scenario *s, unsigned number, struct sites *sites, const struct run_options *o,
                  struct run_result *result, bool (*progress)(void *arg), void *arg);
struct run_result *run_result_new(void);
/** Judge again the one state that an id names and print it all. 0 = sound, 1 = violation, 2 = no such state. */
int replay(const char *id, struct sites *sites, const struct run_options *o);
double now_seconds(void);

/* main.c */
/** Has a signal asked us to stop? */
bool interrupted_by_signal(void *unused);

/* mutate.c */
struct selection {
    const struct scenario *at[64];
    unsigned count;
};
struct mutate_options {
    const char *json;     /* where to write the table; NULL = nowhere */
    const char *places;   /* only the mutants whose FILE:LINE/KIND begins with one of these; NULL = all */
    double seconds;       /* for each mutant; 0 = no bound */
    unsigned part, parts; /* every parts-th mutant, from number part on; from 0 */
    bool progress;
};
/** Leave out each flush, drain, non-temporal store and file sync in turn, and move each behind what should follow it. Returns the
 *  number of survivors, or -1. */
int mutate(const struct selection *chosen, struct sites *sites, const struct run_options *o,
           const struct mutate_options *m);

/* report.c */
struct row {
    const struct scenario *scenario;
    uint64_t ops, events, points, offered, judged, nested, filled, violations, runs;
    double seconds;
};
void report_add(struct row *row, const struct run_result *r);
void report_failures(const struct scenario *s, const struct run_result *r);
void report_table(const struct row *rows, unsigned count);
void report_sites(const struct sites *sites);
int report_json(const char *path, const struct row *rows, unsigned count, const struct sites *sites);
/** A progress bar on stderr if that is a terminal; done < 0 clears it. */
void report_progress(const char *what, double done, uint64_t states, uint64_t violations);

#endif
