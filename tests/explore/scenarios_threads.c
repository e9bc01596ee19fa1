/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scenarios_threads.c -- histories of two to four threads at once, each on its own owners and keys, so that each thread's operations can
 * be judged by themselves: those that ended hold, the one in flight is wholly done or undone.
 *
 * The threads take turns at the events that they record: drawn by lot, one hands over to another, and waits until it is handed the
 * turn again, or for a moment if the other cannot go on, because it waits for a lock that this one holds. So the
 * operations really overlap, in another way for each seed. The pool's own thread, where it is allowed, takes part as one more.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "tests/explore/poolside.h"

#define THREADS_MAX      4u
#define OWNERS_EACH      6u
#define WAIT_NANOSECONDS 300000
#define HUGE_BYTES       1000000u
#define KEYS             60u
#define HAND_OVER_ONE_IN 3u
#define NOBODY           UINT32_MAX

struct turns {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t threads, arrived, turn;
    uint32_t others; /* the pool's own thread */
    bool left[THREADS_MAX + 1];
    uint64_t random;
};

struct thread_work {
    struct history *h;
    struct turns *turns;
    unsigned number, steps, tree;
    int (*step)(struct thread_work *work, unsigned i);
    uint64_t random;
    int result;
};

/* --- taking turns -------------------------------------------------------------------------------------------------------- */

static _Thread_local struct thread_work *mine;
static struct turns turns_now; /* outlives the histories' threads, because the pool's own thread does */

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random += 0x9e3779b97f4a7c15u;
    return mix64(*random) % below;
}

static struct timespec soon(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += WAIT_NANOSECONDS;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

/* Called at each event; see recorder.h. */
static void take_turns(void)
{
    struct turns *t = &turns_now;
    pthread_mutex_lock(&t->mutex);
    uint32_t number = mine == NULL ? t->threads : mine->number;
    uint32_t other = (uint32_t)draw(&t->random, t->threads + t->others);
    if (draw(&t->random, HAND_OVER_ONE_IN) == 0 && other != number && !t->left[other]) {
        struct timespec until = soon();
        t->turn = other;
        pthread_cond_broadcast(&t->changed);
        while (t->turn != number && t->turn != NOBODY)
            if (pthread_cond_timedwait(&t->changed, &t->mutex, &until) == ETIMEDOUT)
                break;
        t->turn = number;
    }
    pthread_mutex_unlock(&t->mutex);
}

static void start_together(struct turns *t)
{
    pthread_mutex_lock(&t->mutex);
    t->arrived++;
    pthread_cond_broadcast(&t->changed);
    while (t->arrived < t->threads)
        pthread_cond_wait(&t->changed, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
}

static void leave(struct turns *t, unsigned number)
{
    pthread_mutex_lock(&t->mutex);
    t->left[number] = true;
    t->turn = NOBODY;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

static void *thread_main(void *arg)
{
    struct thread_work *work = arg;
    mine = work;
    history_pin(work->number);
    start_together(work->turns);
    for (unsigned i = 0; i < work->steps && work->result == 0; i++)
        work->result = work->step(work, i);
    leave(work->turns, work->number);
    mine = NULL;
    return NULL;
}

/* How many operations began while the one before them was in flight. */
static size_t overlaps(const struct history *h)
{
    size_t count = 0;
    for (size_t i = 1; i < h->ops_count; i++)
        count += h->ops[i - 1].end > h->ops[i].begin;
    return count;
}

/* Each of so many threads does so many steps. */
static int run_together(struct history *h, unsigned threads, unsigned steps, unsigned tree,
                        int (*step)(struct thread_work *work, unsigned i))
{
    turns_now = (struct turns){.mutex = PTHREAD_MUTEX_INITIALIZER,
                               .changed = PTHREAD_COND_INITIALIZER,
                               .threads = threads,
                               .turn = NOBODY,
                               .others = poolside_of(h)->params.background,
                               .random = h->seed};
    struct thread_work work[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    h->recorder.pause = take_turns;
    for (unsigned i = 0; i < threads; i++) {
        work[i] = (struct thread_work){h, &turns_now, i, steps, tree, step, mix64(h->seed * THREADS_MAX + i), 0};
        if (pthread_create(&ids[i], NULL, thread_main, &work[i]) != 0)
            return history_fail(h, "no thread");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    h->recorder.pause = NULL;
    for (unsigned i = 0; i < threads; i++)
        TRY(work[i].result);
    return overlaps(h) > 0 ? 0 : history_fail(h, "no two operations overlap");
}

/* --- the histories ------------------------------------------------------------------------------------------------------- */

static uint32_t own_cell(struct thread_work *work)
{
    return poolside_owner(OWNERS_EACH * work->number + (unsigned)draw(&work->random, OWNERS_EACH));
}

static int step_small(struct thread_work *work, unsigned i)
{
    static const size_t sizes[] = {48, 64, 700, 16384};
    uint32_t cell = own_cell(work);
    (void)i;
    if (pa_is_null(poolside_read(work->h, cell)))
        return poolside_alloc(work->h, cell, sizes[draw(&work->random, 4)]);
    return poolside_free(work->h, cell);
}

/* Small, big and huge, reallocated too. */
static int step_any(struct thread_work *work, unsigned i)
{
    static const size_t sizes[] = {64, 3000, 16384, 20000, 90000, HUGE_BYTES};
    uint32_t cell = own_cell(work);
    size_t size = sizes[draw(&work->random, sizeof sizes / sizeof *sizes)];
    (void)i;
    if (pa_is_null(poolside_read(work->h, cell)))
        return poolside_alloc(work->h, cell, size);
    return draw(&work->random, 2) == 0 ? poolside_reallocate(work->h, cell, size, EITHER)
                                       : poolside_free(work->h, cell);
}

/* Two threads need segments and give them back; the third does what the pool's own thread does. */
static int step_segments(struct thread_work *work, unsigned i)
{
    static const size_t sizes[] = {16384, 300000, 500000};
    uint32_t cell = own_cell(work);
    if (work->number == 2)
        return poolside_spare(work->h);
    if (pa_is_null(poolside_read(work->h, cell)))
        return poolside_alloc(work->h, cell, sizes[(work->number + draw(&work->random, 2)) % 3]);
    return i % 4 == 3 ? poolside_defragment(work->h, UINT64_MAX, false) : poolside_free(work->h, cell);
}

/* As step_segments, but whoever takes the last segment of the free list wakes the pool's own thread. */
static int step_wake(struct thread_work *work, unsigned i)
{
    static const size_t sizes[] = {16384, 400000, 500000, HUGE_BYTES};
    uint32_t cell = own_cell(work);
    if (pa_is_null(poolside_read(work->h, cell)))
        return poolside_alloc(work->h, cell, sizes[draw(&work->random, 4)]);
    return i % 8 == 7 ? poolside_defragment(work->h, UINT64_MAX, false) : poolside_free(work->h, cell);
}

/* One tree; a thread's keys are its own, but they lie beside the others' in the same leaves. */
static int step_tree(struct thread_work *work, unsigned i)
{
    uint64_t key = draw(&work->random, KEYS / work->turns->threads) * work->turns->threads + work->number;
    bool there = false;
    TRY(poolside_tree_has(work->h, work->tree, key, &there));
    char op = !there ? 'i' : draw(&work->random, 3) == 0 ? 'u' : 'r';
    return poolside_tree_op(work->h, work->tree, op, key, 1000 * (work->number + 1) + i);
}

static int run_small(struct history *h, unsigned threads, unsigned steps)
{
    poolside_new(h, 2, 16, 8, 2);
    TRY(poolside_create(h, OWNERS_EACH * threads + 1));
    history_from_here(h);
    TRY(run_together(h, threads, steps, 0, step_small));
    return poolside_close(h);
}

static int run_threads(struct history *h)
{
    return run_small(h, 2, 24);
}

static int run_threads_four(struct history *h)
{
    return run_small(h, 4, 14);
}

static int run_threads_any(struct history *h)
{
    poolside_new(h, 2, 16, 30, 2);
    TRY(poolside_create(h, 3 * OWNERS_EACH + 1));
    for (unsigned i = 0; i < 3 * OWNERS_EACH; i += 2) {
        TRY(poolside_alloc(h, poolside_owner(i), i % 4 == 0 ? 500 : 30000));
        TRY(poolside_stamp(h, poolside_owner(i)));
    }
    history_from_here(h);
    TRY(run_together(h, 3, 14, 0, step_any));
    return poolside_close(h);
}

static int run_threads_spare(struct history *h)
{
    poolside_new(h, 2, 16, 30, 2);
    TRY(poolside_create(h, 2 * OWNERS_EACH + 1));
    history_from_here(h);
    TRY(run_together(h, 3, 14, 0, step_segments));
    return poolside_close(h);
}

/* Since an event, the main thread, the history's, and one more have made events. */
static int own_thread_worked(struct history *h, size_t from, unsigned threads)
{
    bool seen[256] = {false};
    unsigned count = 0;
    for (size_t i = from; i < h->trace.count; i++) {
        count += !seen[h->trace.events[i].thread];
        seen[h->trace.events[i].thread] = true;
    }
    return count > threads + 1 ? 0 : history_fail(h, "the pool's own thread did nothing");
}

/* The pool's own thread makes segments ahead. */
static int run_threads_background(struct history *h)
{
    size_t from = h->trace.count;
    poolside_new(h, 2, 16, 30, 2)->params.background = true;
    TRY(poolside_create(h, 2 * OWNERS_EACH + 1));
    history_from_here(h);
    TRY(run_together(h, 2, 18, 0, step_wake));
    TRY(poolside_close(h));
    return own_thread_worked(h, from, 2);
}

/* The pool's own thread reads a block index of many segments that a killed process has left, while others allocate and free. */
static int run_threads_index(struct history *h)
{
    struct poolside *p = poolside_new(h, 2, 16, 30, 1);
    TRY(poolside_create(h, 2 * OWNERS_EACH + 1));
    for (unsigned i = 0; i < 2 * OWNERS_EACH; i++)
        TRY(poolside_alloc(h, poolside_owner(i), i < OWNERS_EACH ? 400000 : 30000));
    for (unsigned i = 0; i < 2 * OWNERS_EACH; i += 3)
        TRY(poolside_free(h, poolside_owner(i)));
    TRY(poolside_kill(h));
    p->params.background = true;
    history_from_here(h);
    TRY(poolside_open(h, 2));
    if (!p->pool->background.running)
        return history_fail(h, "the pool's own thread has nothing to read");
    TRY(run_together(h, 2, 12, 0, step_any));
    return poolside_close(h);
}

static int run_threads_tree(struct history *h)
{
    unsigned tree;
    poolside_new(h, 2, 16, 8, 2);
    TRY(poolside_create(h, 5));
    TRY(poolside_tree_open(h, poolside_owner(0), &tree));
    for (unsigned key = 0; key < KEYS; key++)
        TRY(poolside_tree_op(h, tree, 'i', key * 7 % KEYS, key)); /* all cells are made before the threads are */
    for (unsigned key = 0; key < KEYS; key += 3)
        TRY(poolside_tree_op(h, tree, 'r', key * 7 % KEYS, 0));
    history_from_here(h);
    TRY(run_together(h, 3, 20, tree, step_tree));
    TRY(poolside_tree_close(h, tree));
    return poolside_close(h);
}

#define THREADS_SCENARIO(NAME, TITLE)                                                                                  \
    const struct scenario scenario_##NAME = {.name = #NAME,                                                            \
                                             .title = TITLE,                                                           \
                                             .run = run_##NAME,                                                        \
                                             .judge = poolside_judge,                                                  \
                                             .fini = poolside_fini,                                                    \
                                             .threads = true}

THREADS_SCENARIO(threads, "two threads allocate and free at once");
THREADS_SCENARIO(threads_four, "four threads on two cores allocate and free at once");
THREADS_SCENARIO(threads_any, "three threads use all allocators and reallocate at once");
THREADS_SCENARIO(threads_spare, "two threads use segments that a third makes ahead");
THREADS_SCENARIO(threads_background, "two threads, and the pool's own that makes segments ahead");
THREADS_SCENARIO(threads_index, "two threads, while the pool's own reads a large block index");
THREADS_SCENARIO(threads_tree, "three threads change one FPTree at once");
