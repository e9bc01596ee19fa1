/* SPDX-License-Identifier: BSD-3-Clause */
/* worker.c -- judges the crash states of the points it takes. See explore.h. */
#define XXH_INLINE_ALL /* header only */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "tests/explore/explore.h"

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- sets of hashes ------------------------------------------------------------------------------------------------------ */

/* True if the key is new. When the table is full, everything is new. */
static bool insert(uint64_t *slots, uint64_t *count, uint64_t key)
{
    key = key == 0 ? 1 : key;
    if (__atomic_load_n(count, __ATOMIC_RELAXED) > SEEN_SLOTS / 4 * 3)
        return true;
    for (uint64_t i = mix64(key);; i++) {
        uint64_t *slot = &slots[i % SEEN_SLOTS];
        uint64_t found = __atomic_load_n(slot, __ATOMIC_RELAXED);
        if (found == key)
            return false;
        if (found != 0)
            continue;
        if (__atomic_compare_exchange_n(slot, &found, key, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
            return true;
        }
        if (found == key)
            return false;
    }
}

/* States that look alike are alike only if the same operations had begun and ended. */
static uint64_t moment_hash(const struct worker *w)
{
    uint64_t begun = 0, ended = 0;
    for (size_t i = 0; i < w->history->ops_count; i++) {
        begun += w->history->ops[i].begin < w->point;
        ended += w->history->ops[i].end < w->point;
    }
    return mix64(begun * 2654435761u + mix64(ended + 1));
}

/* --- names of states ----------------------------------------------------------------------------------------------------- */

void worker_id(const struct worker *w, unsigned depth, char *id, size_t size)
{
    size_t used =
        (size_t)snprintf(id, size, "%s:%llu", w->history->scenario->name, (unsigned long long)w->history->seed);
    for (unsigned d = 0; d <= depth && used < size; d++)
        used += (size_t)snprintf(id + used, size - used, ":%zu:%s", w->levels[d].event, w->levels[d].code);
}

/* --- failures ------------------------------------------------------------------------------------------------------------ */

/* Failures count as one kind if they were cut at the same place and say the same apart from numbers. */
static uint64_t failure_key(const struct worker *w, const char *why)
{
    char letters[WHY_BYTES];
    size_t n = 0;
    for (const char *c = why; *c != '\0' && n < 60; c++)
        if ((*c >= 'g' && *c <= 'z') || *c == ' ')
            letters[n++] = *c;
    return mix64(XXH3_64bits(letters, n) ^ (w->has_site ? w->site + 1 : 0));
}

static struct failure *failure_slot(struct run_result *r, uint64_t key)
{
    struct failure *ret = NULL;
    while (__atomic_exchange_n(&r->failures_lock, 1, __ATOMIC_ACQUIRE) != 0)
        usleep(10);
    bool known = false;
    for (uint32_t i = 0; i < r->failures_count; i++)
        known |= r->failures[i].key == key;
    if (!known && r->failures_count < FAILURES_MAX) {
        ret = &r->failures[r->failures_count++];
        ret->key = key;
    }
    __atomic_store_n(&r->failures_lock, 0, __ATOMIC_RELEASE);
    return ret;
}

/* Lose more and more of what was kept while the state is still unsound. */
static void minimise(struct worker *w, unsigned depth, struct image *image, const struct choice *c, struct failure *f)
{
    struct choice best = {0};
    struct judge j;
    unsigned budget = 400;
    choice_copy(&best, c);
    w->quiet = true;
    /* Groups of lines first, then one by one, then one by one again. */
    for (size_t group = best.count / 2; group >= 1 || budget == 0; group /= 2) {
        for (size_t first = 0; first < best.count && budget > 0; first += group) {
            struct choice fewer = {0};
            bool any = false;
            choice_copy(&fewer, &best);
            for (size_t i = first; i < first + group && i < best.count; i++) {
                any |= fewer.prefix[i] != 0;
                fewer.prefix[i] = 0;
            }
            if (any) {
                budget--;
                if (!worker_judge(w, depth, image, &fewer, &j))
                    choice_copy(&best, &fewer);
            }
            choice_fini(&fewer);
        }
        if (group == 1)
            break;
    }
    w->quiet = false;
    char outer[STATE_TEXT_MAX];
    snprintf(outer, sizeof outer, "%s", w->levels[depth].code);
    state_format_choice(image, &best, w->levels[depth].code, STATE_TEXT_MAX);
    worker_id(w, depth, f->minimal, sizeof f->minimal);
    snprintf(w->levels[depth].code, STATE_TEXT_MAX, "%s", outer);
    const struct trace *t = depth == 0 ? &w->history->trace : &w->levels[depth - 1].trace;
    size_t used = strlen(f->detail);
    explain_choice(image, &best, t, w->history->recorder.sites, f->detail + used, DETAIL_BYTES - used);
    choice_fini(&best);
}

static void describe(struct worker *w, unsigned depth, struct failure *f)
{
    const struct sites *sites = w->history->recorder.sites;
    char where[256];
    explain_point(&w->history->trace, w->levels[0].event, sites, where, sizeof where);
    size_t used = (size_t)snprintf(f->detail, DETAIL_BYTES, "    crash %s\n", where);
    for (size_t i = 0; i < w->history->ops_count; i++)
        if (op_state_at(&w->history->ops[i], w->point) == OP_IN_FLIGHT)
            used +=
                (size_t)snprintf(f->detail + used, DETAIL_BYTES - used, "    in flight: %s\n", w->history->ops[i].what);
    for (unsigned d = 1; d <= depth; d++) {
        explain_point(&w->levels[d - 1].trace, w->levels[d].event, sites, where, sizeof where);
        used += (size_t)snprintf(f->detail + used, DETAIL_BYTES - used, "    crash in its recovery %s\n", where);
    }
}

static void report(struct worker *w, unsigned depth, struct image *image, const struct choice *c, const struct judge *j)
{
    struct run_result *r = w->shared->result;
    uint64_t violations = __atomic_add_fetch(&r->violations, 1, __ATOMIC_RELAXED);
    struct failure *f = failure_slot(r, failure_key(w, j->why));
    if (f != NULL) {
        snprintf(f->why, sizeof f->why, "%s", j->why);
        worker_id(w, depth, f->id, sizeof f->id);
        if (w->o->max_failures > 1) {
            describe(w, depth, f);
            minimise(w, depth, image, c, f);
        }
    }
    if (violations >= w->o->max_failures)
        __atomic_store_n(&w->shared->stop, 1, __ATOMIC_RELAXED);
}

/* --- one state ----------------------------------------------------------------------------------------------------------- */

static void start_recorder(struct recorder *r, const struct image *image, const struct choice *c)
{
    struct name_entry names[NAMES_MAX];
    struct holes holes;
    unsigned count = image_names(image, c, names);
    image_holes(image, c, &holes);
    recorder_restart(r, names, count, &holes, image->inodes_count);
}

static void judge_with(struct worker *w, const struct image *image, struct judge *j, struct recorder *r,
                       enum judge_phase phase)
{
    j->recorder = r;
    w->history->scenario->judge(j, phase);
    disk_absorb(&w->disk, image, r->trace);
    if (j->why[0] == '\0' && r->problem[0] != '\0')
        judge_fail(j, "%s", r->problem);
}

/* The names and inodes that the first opening left, for the recording of the next. */
static void judge_further(struct worker *w, const struct image *image, struct judge *j, struct recorder *before,
                          enum judge_phase phase)
{
    struct name_entry names[NAMES_MAX];
    unsigned count = before->names_count;
    memcpy(names, before->names, sizeof names);
    uint32_t next = before->next_inode;
    struct holes holes;
    holes_copy(&holes, &before->holes);
    recorder_restart(&w->again, names, count, &holes, next);
    judge_with(w, image, j, &w->again, phase);
}

bool worker_judge(struct worker *w, unsigned depth, struct image *image, const struct choice *c, struct judge *j)
{
    struct level *level = &w->levels[depth];
    *j = (struct judge){.history = w->history, .event = w->point, .dir = w->disk.pool, .verbose = w->o->verbose};
    j->shown = depth > 0 && w->levels[depth - 1].opened > 0 && level->event >= w->levels[depth - 1].opened;
    disk_apply(&w->disk, image, c);
    start_recorder(&level->recorder, image, c);
    judge_with(w, image, j, &level->recorder, JUDGE_OPEN);
    level->cells = j->cells;
    level->opened = j->opened;
    /* The program may have acted on what the opening before this crash had found. */
    if (j->shown && j->why[0] == '\0' && j->opened > 0 && j->cells != w->levels[depth - 1].cells)
        judge_fail(j, "what the opening before this crash had found is not what this one finds");
    if (j->why[0] != '\0')
        return false;
    uint64_t first = j->fingerprint;
    uint64_t after = mix64(disk_hash(&w->disk, image) ^ mix64(first) ^ moment_hash(w));
    /* What follows depends only on what is in the directory now, so it is done once for each such content. */
    if (!w->quiet && !insert(w->shared->sound, &w->shared->sound_count, after))
        return true;
    j->fingerprint = j->cells = 0;
    judge_further(w, image, j, &level->recorder, JUDGE_AGAIN);
    if (j->why[0] == '\0' && j->fingerprint != first)
        judge_fail(j, "a second opening finds another content than the first");
    if (j->why[0] != '\0' || w->o->fill_every == 0 || (!w->quiet && mix64(after) % w->o->fill_every != 0))
        return j->why[0] == '\0';
    __atomic_add_fetch(&w->shared->result->filled, 1, __ATOMIC_RELAXED);
    judge_further(w, image, j, &w->again, JUDGE_FILL);
    return j->why[0] == '\0';
}

/* --- walking ------------------------------------------------------------------------------------------------------------- */

struct visit {
    struct worker *w;
    unsigned depth;
    struct image *image;
};

static bool must_stop(struct worker *w)
{
    struct shared *s = w->shared;
    if (w->o->max_states != 0 && __atomic_load_n(&s->result->judged, __ATOMIC_RELAXED) >= w->o->max_states)
        __atomic_store_n(&s->stop, 1, __ATOMIC_RELAXED);
    if (s->deadline != 0 && now_seconds() > s->deadline)
        __atomic_store_n(&s->stop, 1, __ATOMIC_RELAXED);
    return __atomic_load_n(&s->stop, __ATOMIC_RELAXED) != 0;
}

static int crash_again(struct worker *w, unsigned depth, struct image *image, const struct choice *c);

/* A crash point of a history or of a recovery is looked at. */
static void count_point(const struct worker *w)
{
    struct sites *sites = w->history->recorder.sites;
    if (!w->has_site)
        return;
    __atomic_add_fetch(&sites->at[w->site].points, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&sites->steps[w->step].points, 1, __ATOMIC_RELAXED);
}

static unsigned nested_every(const struct worker *w)
{
    return w->history->scenario->nested_every != 0 && w->history->scenario->nested_every < w->o->nested_every
               ? w->history->scenario->nested_every
               : w->o->nested_every;
}

/* So many power failures led to the state in work. */
static unsigned power_failures(const struct worker *w, unsigned depth)
{
    unsigned count = 0;
    for (unsigned d = 0; d <= depth; d++)
        count += !state_is_kill(w->levels[d].code);
    return count;
}

void worker_fork(struct image *child, struct image *image, const struct choice *c, const char *code)
{
    if (state_is_kill(code))
        image_fork_kill(child, image);
    else
        image_fork(child, image, c);
}

static int visit_state(void *arg, const struct state_code *code, const struct choice *c)
{
    struct visit *v = arg;
    struct worker *w = v->w;
    struct run_result *r = w->shared->result;
    if (must_stop(w))
        return 1;
    __atomic_add_fetch(&r->offered, 1, __ATOMIC_RELAXED);
    uint64_t key = mix64(image_hash(v->image, c) ^ moment_hash(w));
    /* What an earlier opening has shown binds, so the same content is another state then. */
    if (v->depth > 0 && w->levels[v->depth].event >= w->levels[v->depth - 1].opened)
        key = mix64(key ^ w->levels[v->depth - 1].cells);
    if (code->kind == 'k') /* looks like 'a', but another crash may follow differently */
        key = mix64(key + v->depth + 1);
    if (!insert(w->shared->seen, &w->shared->seen_count, key))
        return 0;
    state_format(code, w->levels[v->depth].code, STATE_TEXT_MAX);
    worker_id(w, v->depth, w->shared->workers[w->number].id, ID_BYTES);
    __atomic_add_fetch(&w->shared->workers[w->number].beat, 1, __ATOMIC_RELAXED);
    uint64_t judged = __atomic_add_fetch(&r->judged, 1, __ATOMIC_RELAXED);
    if (v->depth > 0)
        __atomic_add_fetch(&r->nested, 1, __ATOMIC_RELAXED);
    if (w->has_site) {
        __atomic_add_fetch(&w->history->recorder.sites->at[w->site].states, 1, __ATOMIC_RELAXED);
        __atomic_add_fetch(&w->history->recorder.sites->steps[w->step].states, 1, __ATOMIC_RELAXED);
    }
    struct judge j;
    bool sound = worker_judge(w, v->depth, v->image, c, &j);
    if (sound && judged % 1024 == 0)
        sound = disk_verify(&w->disk, v->image, j.why, sizeof j.why);
    if (!sound) {
        report(w, v->depth, v->image, c, &j);
        return must_stop(w);
    }
    if (code->kind == 'k' || (power_failures(w, v->depth) < w->o->depth && mix64(key) % nested_every(w) == 0))
        return crash_again(w, v->depth, v->image, c);
    return 0;
}

void worker_space(struct worker *w, struct state_space *s, const struct trace *t, unsigned depth, struct image *image,
                  size_t event)
{
    size_t recent = event;
    if (depth == 0) {
        /* What the operations in flight stored, or the last one that ended. */
        const struct op *ops = w->history->ops;
        for (size_t i = 0; i < w->history->ops_count; i++)
            if (ops[i].begin < event)
                recent = ops[i].begin;
        for (size_t i = 0; i < w->history->ops_count; i++)
            if (op_state_at(&ops[i], event) == OP_IN_FLIGHT && ops[i].begin < recent)
                recent = ops[i].begin;
    } else {
        for (unsigned drains = 0; recent > 0 && drains < 2; recent--)
            drains += t->events[recent - 1].kind == TRACE_DRAIN;
    }
    uint64_t seed = w->history->seed;
    for (unsigned d = 0; d <= depth; d++)
        seed = mix64(seed ^ mix64(w->levels[d].event + d));
    struct state_limits limits = depth == 0 ? w->o->limits : w->o->nested_limits;
    limits.name_kills = w->history->scenario->name_kills;
    state_space_init(s, image, (uint32_t)recent, seed, &limits);
}

/* Look at the states of an image that stands before an event of a trace. */
static int walk_point(struct worker *w, unsigned depth, struct image *image, const struct trace *t, size_t event)
{
    struct state_space space;
    struct visit v = {w, depth, image};
    w->levels[depth].event = event;
    worker_space(w, &space, t, depth, image, event);
    int stop = state_space_walk(&space, w->o->round, visit_state, &v);
    state_space_fini(&space);
    return stop;
}

/* The recovery of image + c has just been recorded and found sound: crash at its own points. */
static int crash_again(struct worker *w, unsigned depth, struct image *image, const struct choice *c)
{
    const struct trace *t = &w->levels[depth].trace;
    if (depth + 1 >= DEPTH_MAX || t->count == 0)
        return 0;
    __atomic_add_fetch(&w->shared->result->depth2_recoveries, 1, __ATOMIC_RELAXED);
    struct image *child = malloc(sizeof *child);
    if (child == NULL)
        abort();
    worker_fork(child, image, c, w->levels[depth].code);
    size_t count;
    struct point *points = points_of(t, 0, false, &count);
    size_t at = 0;
    int stop = 0;
    uint32_t site = w->site, step = w->step;
    bool has_site = w->has_site;
    for (size_t i = 0; i < count && stop == 0; i++) {
        for (; at < points[i].event; at++)
            image_apply(child, t, &t->events[at], (uint32_t)at);
        w->site = points[i].site;
        w->step = points[i].step;
        w->has_site = points[i].has_site;
        count_point(w);
        stop = walk_point(w, depth + 1, child, t, at);
    }
    w->site = site;
    w->step = step;
    w->has_site = has_site;
    free(points);
    uint32_t known = child->shared_inodes;
    image_join(child);
    disk_forget(&w->disk, known);
    free(child);
    return stop;
}

/* --- passes -------------------------------------------------------------------------------------------------------------- */

void worker_set_point(struct worker *w, const struct point *p)
{
    w->point = p->event;
    w->site = p->site;
    w->step = p->step;
    w->has_site = p->has_site;
}

static void rewind_image(struct worker *w)
{
    image_clear(&w->image);
    disk_forget(&w->disk, 0);
    w->disk.touched_count = 0;
    w->disk.names_changed = true;
}

void worker_pass(struct worker *w, const struct point *points, size_t count, unsigned pass)
{
    static const unsigned first_of_pass[PASSES] = {0, 4, 2, 6, 1, 5, 3, 7};
    const struct trace *t = &w->history->trace;
    size_t at = 0;
    rewind_image(w);
    while (!must_stop(w)) {
        uint64_t mine = __atomic_fetch_add(&w->shared->next, 1, __ATOMIC_RELAXED);
        size_t k = (size_t)mine * PASSES + first_of_pass[pass];
        if (k >= count)
            break;
        for (; at < points[k].event; at++)
            image_apply(&w->image, t, &t->events[at], (uint32_t)at);
        worker_set_point(w, &points[k]);
        __atomic_add_fetch(&w->shared->result->points, 1, __ATOMIC_RELAXED);
        count_point(w);
        walk_point(w, 0, &w->image, t, at);
    }
}

static void init_recorder(struct recorder *r, struct trace *t, const struct history *h, const char *root)
{
    recorder_init(r, h->recorder.sites, t, root);
    r->scenario = h->recorder.scenario;
    r->seen = SITE_SEEN_RECOVERY;
}

void worker_init(struct worker *w, const struct run_options *o, struct history *h, struct shared *shared,
                 unsigned number, const char *root)
{
    memset(w, 0, sizeof *w);
    w->o = o;
    w->history = h;
    w->shared = shared;
    w->number = number;
    remove_tree(root);
    if (disk_open(&w->disk, root) != 0)
        abort();
    image_init(&w->image);
    w->image.changed = disk_line_changed;
    w->image.context = &w->disk;
    for (unsigned d = 0; d < DEPTH_MAX; d++)
        init_recorder(&w->levels[d].recorder, &w->levels[d].trace, h, w->disk.tree);
    init_recorder(&w->again, &w->again_trace, h, w->disk.tree);
}

void worker_fini(struct worker *w)
{
    for (unsigned d = 0; d < DEPTH_MAX; d++) {
        recorder_fini(&w->levels[d].recorder);
        trace_fini(&w->levels[d].trace);
    }
    recorder_fini(&w->again);
    trace_fini(&w->again_trace);
    image_fini(&w->image);
    disk_close(&w->disk);
}
