/* SPDX-License-Identifier: BSD-3-Clause */
/* run.c -- the processes of a run, and running one state alone. See explore.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/explore/explore.h"

void run_options_init(struct run_options *o)
{
    *o = (struct run_options){.dir = "/dev/shm",
                              .workers = 2,
                              .depth = 2,
                              .nested_every = 32,
                              .fill_every = 16,
                              .seed = 1,
                              .max_failures = 20,
                              .hang_seconds = 20,
                              .shadow = true};
    o->limits =
        (struct state_limits){.singles = 48, .pairs = 6, .exhaustive = 192, .random = 12, .files = 64, .kills = 4};
    o->nested_limits =
        (struct state_limits){.singles = 10, .pairs = 3, .exhaustive = 24, .random = 4, .files = 16, .kills = 16};
}

void run_options_brief(struct run_options *o)
{
    struct state_limits few = {.singles = 2, .random = 1, .files = 2, .kills = 16};
    o->limits = few;
    o->nested_limits = few;
    o->nested_limits.kills = 0;
    o->fill_every = 256;
    o->nested_every = 128;
}

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

struct run_result *run_result_new(void)
{
    return shared_memory(sizeof(struct run_result));
}

static void add_failure(struct run_result *r, const char *id, const char *why)
{
    r->violations++;
    if (r->failures_count == FAILURES_MAX)
        return;
    struct failure *f = &r->failures[r->failures_count++];
    memset(f, 0, sizeof *f);
    f->key = r->violations;
    snprintf(f->id, sizeof f->id, "%s", id);
    snprintf(f->why, sizeof f->why, "%s", why);
}

/* --- workers ------------------------------------------------------------------------------------------------------------- */

struct runner {
    const struct run_options *o;
    struct history history;
    struct shared *shared;
    struct point *points;
    size_t points_count;
    char root[256];
    struct {
        pid_t pid;
        uint64_t beat;
        double moved; /* when the beat last changed */
    } workers[WORKERS_MAX];
};

/* Where a scenario is recorded, below the directory of the workers'; and that it is there. */
static void record_root(const struct scenario *s, const char *root, char *path, size_t size)
{
    if (s->in_place) {
        snprintf(path, size, "%s/w0", root);
        mkdir(path, 0700);
    }
    snprintf(path, size, s->in_place ? "%s/w0/tree" : "%s/record", root);
}

static void worker_root(const struct runner *r, unsigned n, char *path, size_t size)
{
    snprintf(path, size, "%s/w%u", r->root, n);
}

static void start_worker(struct runner *r, unsigned n, unsigned pass)
{
    fflush(NULL);
    r->workers[n].moved = now_seconds();
    r->workers[n].beat = r->shared->workers[n].beat;
    pid_t parent = getpid();
    r->workers[n].pid = fork();
    if (r->workers[n].pid != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    static struct worker w;
    char root[280];
    worker_root(r, n, root, sizeof root);
    worker_init(&w, r->o, &r->history, r->shared, n, root);
    worker_pass(&w, r->points, r->points_count, pass);
    char why[WHY_BYTES];
    if (!disk_verify(&w.disk, &w.image, why, sizeof why))
        add_failure(r->shared->result, r->history.scenario->name, why);
    worker_fini(&w);
    _exit(0);
}

/* A worker that died or hangs has found something; another one takes its place. True if it has ended. */
static bool watch_worker(struct runner *r, unsigned n, unsigned pass)
{
    int status;
    pid_t pid = waitpid(r->workers[n].pid, &status, WNOHANG);
    double now = now_seconds();
    if (pid == 0) {
        uint64_t beat = __atomic_load_n(&r->shared->workers[n].beat, __ATOMIC_RELAXED);
        if (beat != r->workers[n].beat)
            r->workers[n].moved = now;
        r->workers[n].beat = beat;
        if (now - r->workers[n].moved < r->o->hang_seconds)
            return false;
        kill(r->workers[n].pid, SIGKILL);
        waitpid(r->workers[n].pid, &status, 0);
        add_failure(r->shared->result, r->shared->workers[n].id, "the library hangs in this state");
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return true;
    } else {
        char why[128];
        snprintf(why, sizeof why, "the library dies in this state: %s",
                 WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
        add_failure(r->shared->result, r->shared->workers[n].id, why);
    }
    if (r->shared->result->violations >= r->o->max_failures) {
        r->shared->stop = 1;
        return true;
    }
    start_worker(r, n, pass);
    return false;
}

static void run_pass(struct runner *r, unsigned pass)
{
    bool ended[WORKERS_MAX] = {false};
    unsigned left = r->o->workers;
    r->shared->next = 0;
    for (unsigned n = 0; n < r->o->workers; n++)
        start_worker(r, n, pass);
    while (left > 0) {
        usleep(2000);
        for (unsigned n = 0; n < r->o->workers; n++) {
            if (ended[n] || !watch_worker(r, n, pass))
                continue;
            ended[n] = true;
            left--;
        }
    }
}

static void runner_main(const struct scenario *s, unsigned number, struct sites *sites, const struct run_options *o,
                        struct run_result *result)
{
    static struct runner r;
    static struct run_options own;
    own = *o;
    if (s->in_place)
        own.workers = 1;
    r.o = o = &own;
    r.shared = shared_memory(sizeof *r.shared);
    r.shared->result = result;
    snprintf(r.root, sizeof r.root, "%s/run", o->dir);
    remove_tree(r.root);
    if (mkdir(r.root, 0700) != 0)
        abort();
    char dir[280];
    record_root(s, r.root, dir, sizeof dir);
    double start = now_seconds();
    history_record(&r.history, s, number, dir, sites, o);
    r.points = points_of(&r.history.trace, r.history.from, true, &r.points_count);
    if (o->near_skip != 0 && r.history.trace.skips_count > 0)
        r.points_count = points_near_skips(&r.history.trace, r.points, r.points_count, o->near_skip);
    result->ops = r.history.ops_count;
    result->events = r.history.trace.count;
    result->points_planned = r.points_count;
    if (r.history.problem[0] != '\0') {
        char id[128];
        snprintf(id, sizeof id, "%s:%llu", s->name, (unsigned long long)o->seed);
        add_failure(result, id, r.history.problem);
        _exit(0);
    }
    __atomic_store_n(&result->phase, RUN_EXPLORING, __ATOMIC_RELEASE);
    r.shared->deadline = o->max_seconds > 0 ? start + o->max_seconds : 0;
    for (unsigned pass = 0; pass < PASSES && !r.shared->stop; pass++)
        run_pass(&r, pass);
    result->complete = !r.shared->stop;
    _exit(0);
}

/* --- the runner seen from outside ---------------------------------------------------------------------------------------- */

static void runner_died(struct run_result *result, const struct scenario *s, const struct run_options *o, int status)
{
    char id[128], why[WHY_BYTES];
    snprintf(id, sizeof id, "%s:%llu", s->name, (unsigned long long)o->seed);
    snprintf(why, sizeof why, "the library dies while the history is recorded: %s",
             WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
    add_failure(result, id, why);
}

void run_scenario(const struct scenario *s, unsigned number, struct sites *sites, const struct run_options *o,
                  struct run_result *result, bool (*progress)(void *arg), void *arg)
{
    memset(result, 0, sizeof *result);
    double start = now_seconds(), told = start;
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        setpriority(PRIO_PROCESS, 0, 10);
        runner_main(s, number, sites, o, result);
    }
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        usleep(2000);
        double now = now_seconds();
        bool stuck =
            __atomic_load_n(&result->phase, __ATOMIC_ACQUIRE) == RUN_RECORDING && now - start > o->hang_seconds;
        if (stuck) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            char id[128];
            snprintf(id, sizeof id, "%s:%llu", s->name, (unsigned long long)o->seed);
            add_failure(result, id, "the library hangs while the history is recorded");
            status = 0;
            break;
        }
        if (progress != NULL && now - told > 0.1) {
            told = now;
            if (progress(arg)) {
                kill(pid, SIGKILL);
                waitpid(pid, &status, 0);
                status = 0;
                break;
            }
        }
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        runner_died(result, s, o, status);
    result->phase = RUN_DONE;
    result->seconds = now_seconds() - start;
    char root[256];
    snprintf(root, sizeof root, "%s/run", o->dir);
    remove_tree(root);
}

/* --- one state alone ----------------------------------------------------------------------------------------------------- */

static const struct scenario *find_scenario(const char *name, size_t length)
{
    for (const struct scenario *const *s = scenarios; *s != NULL; s++)
        if (strlen((*s)->name) == length && strncmp((*s)->name, name, length) == 0)
            return *s;
    return NULL;
}

static void print_state(struct worker *w, unsigned depth, const struct image *image, const struct choice *c,
                        const struct trace *t)
{
    char text[16384];
    explain_point(t, w->levels[depth].event, w->history->recorder.sites, text, sizeof text);
    printf("%s %s\n", depth == 0 ? "crash" : "crash in the recovery", text);
    if (depth == 0)
        for (size_t i = 0; i < w->history->ops_count; i++)
            if (op_state_at(&w->history->ops[i], w->point) == OP_IN_FLIGHT)
                printf("  in flight: %s\n", w->history->ops[i].what);
    explain_choice(image, c, t, w->history->recorder.sites, text, sizeof text);
    printf("%s", text);
}

/* One "event:state" of an id, and what follows it. */
static int replay_level(struct worker *w, unsigned depth, struct image *image, const struct trace *t, char *rest)
{
    char *state = rest == NULL ? NULL : strchr(rest, ':');
    if (state == NULL || depth >= DEPTH_MAX)
        return 2;
    *state++ = '\0';
    char *next = strchr(state, ':');
    if (next != NULL)
        *next++ = '\0';
    size_t event = strtoul(rest, NULL, 10);
    if (event > t->count)
        return 2;
    for (size_t i = 0; i < event; i++)
        image_apply(image, t, &t->events[i], (uint32_t)i);
    w->levels[depth].event = event;
    if (depth == 0)
        w->point = event;
    struct state_space space;
    struct choice c = {0};
    struct judge j;
    worker_space(w, &space, t, depth, image, event);
    int result = 2;
    if (state_parse(&space, state, &c)) {
        print_state(w, depth, image, &c, t);
        w->quiet = true;
        bool sound = worker_judge(w, depth, image, &c, &j);
        printf("%s%s\n", sound ? "sound" : "VIOLATION: ", j.why);
        result = sound ? 0 : 1;
        if (next != NULL) {
            static struct image children[DEPTH_MAX];
            worker_fork(&children[depth], image, &c, state);
            result = replay_level(w, depth + 1, &children[depth], &w->levels[depth].trace, next);
            image_join(&children[depth]);
        }
    }
    state_space_fini(&space);
    choice_fini(&c);
    return result;
}

int replay(const char *id, struct sites *sites, const struct run_options *given)
{
    char text[ID_BYTES], dir[280], root[280];
    snprintf(text, sizeof text, "%s", id);
    char *seed = strchr(text, ':');
    const struct scenario *s = seed == NULL ? NULL : find_scenario(text, (size_t)(seed - text));
    if (s == NULL) {
        fprintf(stderr, "explore: no scenario in '%s'\n", id);
        return 2;
    }
    struct run_options o = *given;
    char *rest;
    o.seed = strtoull(seed + 1, &rest, 10);
    static struct history h;
    static struct worker w;
    struct shared *shared = shared_memory(sizeof *shared);
    shared->result = run_result_new();
    record_root(s, o.dir, dir, sizeof dir);
    snprintf(root, sizeof root, "%s/w0", o.dir);
    history_record(&h, s, 0, dir, sites, &o);
    if (h.problem[0] != '\0') {
        printf("VIOLATION in the history itself: %s\n", h.problem);
        return 1;
    }
    worker_init(&w, &o, &h, shared, 0, root);
    int result = replay_level(&w, 0, &w.image, &h.trace, *rest == ':' ? rest + 1 : NULL);
    worker_fini(&w);
    if (result == 2)
        fprintf(stderr, "explore: '%s' names no state of this history\n", id);
    return result;
}
