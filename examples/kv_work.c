/* SPDX-License-Identifier: BSD-3-Clause */
#include "examples/kv_work.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static const char *const phase_names[] = {"load", "look up", "mix", "empty", "mix"};

/** One thread of a phase. */
struct worker {
    _Alignas(64) struct work *work;
    enum work_phase phase;
    unsigned number;
    pthread_t thread;
    pthread_barrier_t *start;
    uint64_t goal;   /* mix operations */
    uint64_t random; /* state of the generator */
    uint64_t done;   /* read by the progress bar meanwhile */
    uint64_t failures;
    double began, ended, cpu_seconds;
};

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* xorshift64* */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static unsigned owner_of(const struct work *w, uint64_t key)
{
    return (unsigned)(((key * UINT64_C(0xd1342543de82ef95)) >> 32) % w->threads);
}

/* ---- values and states ---- */

static bool is_present(work_state s)
{
    return (s & 1) != 0;
}

static uint64_t version_of(work_state s)
{
    return s >> 1;
}

static size_t make_value(const struct kv_line *record, uint64_t version, char *buffer)
{
    static const char digits[] = "0123456789abcdef";
    memcpy(buffer, record->value, record->length);
    if (version == 0)
        return record->length;
    char *p = buffer + record->length;
    *p++ = '@';
    for (int shift = 28; shift >= 0; shift -= 4)
        *p++ = digits[version >> shift & 15];
    return record->length + 9;
}

/** What a get of the record should give in state s: 0 = just that, else what is wrong, as a letter. */
static char compare(const struct work *w, uint32_t record, work_state s, int found, const char *value, size_t length)
{
    char expected[KV_VALUE_MAX];
    if (found == KV_NOT_FOUND)
        return is_present(s) ? 'L' : 0;
    if (!is_present(s))
        return 'R';
    size_t n = make_value(&w->input->records[record], version_of(s), expected);
    return n == length && memcmp(expected, value, n) == 0 ? 0 : 'W';
}

/* ---- operations ---- */

/** Announce in the journal, do, acknowledge. */
static void change(struct worker *me, uint32_t record, bool put)
{
    struct work *w = me->work;
    struct work_journal *journal = &w->journal[me->number];
    const struct kv_line *line = &w->input->records[record];
    work_state before = w->states[record], after = put ? (before | 1) + 2 : before & ~(work_state)1;
    char value[KV_VALUE_MAX];

    __atomic_store_n(&journal->after, after, __ATOMIC_RELEASE);
    __atomic_store_n(&journal->record, (uint64_t)record + 1, __ATOMIC_RELEASE);
    int r =
        put ? kv_put(w->kv, line->key, value, make_value(line, version_of(after), value)) : kv_delete(w->kv, line->key);
    if (r == KV_OK)
        __atomic_store_n(&w->states[record], after, __ATOMIC_RELEASE);
    else
        me->failures++;
    __atomic_store_n(&journal->record, 0, __ATOMIC_RELEASE);
}

static void look_up(struct worker *me, uint32_t record)
{
    struct work *w = me->work;
    char value[KV_VALUE_MAX];
    size_t length = 0;
    int r = kv_get(w->kv, w->input->records[record].key, value, &length);
    me->failures += r == KV_ERROR || compare(w, record, w->states[record], r, value, length) != 0;
}

/** Absent: insert again. Present: look up 40 %, delete 30 %, replace 30 %. */
static void mix_one(struct worker *me)
{
    struct work *w = me->work;
    uint64_t random = next_random(&me->random);
    uint32_t record = w->owned[me->number][(random >> 32) % w->owned_count[me->number]];
    unsigned dice = (unsigned)(random & 0xffff) % 10;
    if (!is_present(w->states[record]) || dice >= 7)
        change(me, record, true);
    else if (dice >= 4)
        change(me, record, false);
    else
        look_up(me, record);
}

static void step_done(struct worker *me)
{
    __atomic_store_n(&me->done, me->done + 1, __ATOMIC_RELAXED);
}

static void load(struct worker *me)
{
    struct work *w = me->work;
    for (size_t i = 0; i < w->input->line_count; i++) {
        const struct kv_line *line = &w->input->lines[i];
        if (owner_of(w, line->key) != me->number)
            continue;
        me->failures += kv_put(w->kv, line->key, line->value, line->length) != KV_OK;
        step_done(me);
    }
    for (uint32_t i = 0; i < w->owned_count[me->number]; i++)
        w->states[w->owned[me->number][i]] = 1;
}

static void over_owned(struct worker *me)
{
    struct work *w = me->work;
    for (uint32_t i = 0; i < w->owned_count[me->number]; i++) {
        uint32_t record = w->owned[me->number][i];
        if (me->phase == WORK_LOOKUP)
            look_up(me, record);
        else if (is_present(w->states[record]))
            change(me, record, false);
        else
            continue;
        step_done(me);
    }
}

static void mix(struct worker *me)
{
    struct work *w = me->work;
    if (w->owned_count[me->number] == 0)
        return;
    while (me->done < me->goal) {
        mix_one(me);
        step_done(me);
        if (me->phase == WORK_UNTIL_KILLED)
            __atomic_store_n(&w->journal[me->number].done, me->done, __ATOMIC_RELAXED);
    }
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    pthread_barrier_wait(me->start);
    double cpu = now(CLOCK_THREAD_CPUTIME_ID);
    me->began = now(CLOCK_MONOTONIC);
    if (me->phase == WORK_LOAD)
        load(me);
    else if (me->phase == WORK_LOOKUP || me->phase == WORK_EMPTY)
        over_owned(me);
    else
        mix(me);
    me->ended = now(CLOCK_MONOTONIC);
    me->cpu_seconds = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
    return NULL;
}

/* ---- phases ---- */

static uint64_t expected_steps(const struct work *w, enum work_phase phase, uint64_t mix_operations)
{
    if (phase == WORK_LOAD)
        return w->input->line_count;
    return phase == WORK_MIX ? mix_operations : w->input->record_count;
}

/** Wait for the threads, drawing the bar ten times a second. */
static void join_all(struct work *w, struct worker *workers, enum work_phase phase, uint64_t steps)
{
    for (unsigned i = 0; i < w->threads;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100 * 1000 * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (!w->show_progress)
            i += pthread_join(workers[i].thread, NULL) == 0;
        else if (pthread_timedjoin_np(workers[i].thread, NULL, &until) == 0)
            i++;
        uint64_t done = 0;
        for (unsigned t = 0; t < w->threads; t++)
            done += __atomic_load_n(&workers[t].done, __ATOMIC_RELAXED);
        if (w->show_progress && steps > 0)
            work_progress(phase_names[phase], (double)done / (double)steps);
    }
    if (w->show_progress)
        work_progress_end();
}

static void sum_up(struct work *w, const struct worker *workers, struct work_result *ret)
{
    double began = workers[0].began, ended = workers[0].ended;
    for (unsigned t = 0; t < w->threads; t++) {
        ret->operations += workers[t].done;
        ret->failures += workers[t].failures;
        ret->cpu_seconds += workers[t].cpu_seconds;
        began = workers[t].began < began ? workers[t].began : began;
        ended = workers[t].ended > ended ? workers[t].ended : ended;
    }
    ret->seconds = ended - began;
}

void work_run(struct work *w, enum work_phase phase, uint64_t mix_operations, struct work_result *ret)
{
    static struct worker workers[WORK_THREADS_MAX];
    pthread_barrier_t start;
    struct kv_stats before = {0, 0, 0}, after = {0, 0, 0};
    memset(ret, 0, sizeof *ret);
    memset(workers, 0, sizeof workers);
    kv_stats(w->kv, &before);
    pthread_barrier_init(&start, NULL, w->threads);
    for (unsigned t = 0; t < w->threads; t++) {
        struct worker *me = &workers[t];
        *me = (struct worker){.work = w, .phase = phase, .number = t, .start = &start};
        me->goal = phase == WORK_UNTIL_KILLED ? UINT64_MAX : (mix_operations + w->threads - 1) / w->threads;
        me->random = (w->seed += 2) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        if (pthread_create(&me->thread, NULL, worker_main, me) != 0) {
            fprintf(stderr, "cannot start a thread\n");
            exit(2);
        }
    }
    join_all(w, workers, phase, expected_steps(w, phase, mix_operations));
    pthread_barrier_destroy(&start);
    kv_stats(w->kv, &after);
    sum_up(w, workers, ret);
    ret->fences = after.fences - before.fences;
    ret->lines = after.lines - before.lines;
}

/* ---- verification ---- */

static void complain(const struct work *w, uint32_t record, char what, work_state expected,
                     const struct work_verdict *v)
{
    const struct kv_line *line = &w->input->records[record];
    if (v->lost + v->wrong + v->returned > 5)
        return;
    fprintf(stderr, "key %016llx (%.*s, version %llu): %s\n", (unsigned long long)line->key, (int)line->length,
            line->value, (unsigned long long)version_of(expected),
            what == 'L'   ? "acknowledged, and it is not there"
            : what == 'R' ? "deletion acknowledged, and it is there"
                          : "it has another value than the acknowledged one");
}

/** Judge one record; *may_be is a second allowed state, or NULL. Takes over the state that was found. */
static int verify_record(struct work *w, uint32_t record, const work_state *may_be, struct work_verdict *v)
{
    char value[KV_VALUE_MAX];
    size_t length = 0;
    int r = kv_get(w->kv, w->input->records[record].key, value, &length);
    if (r == KV_ERROR)
        return -1;
    v->checked++;
    char what = compare(w, record, w->states[record], r, value, length);
    if (what != 0 && may_be != NULL && compare(w, record, *may_be, r, value, length) == 0) {
        w->states[record] = *may_be;
        v->in_flight_done++;
        what = 0;
    }
    v->lost += what == 'L';
    v->wrong += what == 'W';
    v->returned += what == 'R';
    if (what != 0)
        complain(w, record, what, w->states[record], v);
    return 0;
}

struct order {
    uint64_t count, last, faults;
};

static int visit_in_order(uint64_t key, void *arg)
{
    struct order *order = arg;
    order->faults += order->count > 0 && key <= order->last;
    order->last = key;
    order->count++;
    return 0;
}

/** Nothing but the present records: in the index, and in blocks. */
static int verify_blocks(struct work *w, uint64_t present, struct work_verdict *v)
{
    struct order order = {0, 0, 0};
    struct kv_audit audit;
    if (kv_scan(w->kv, visit_in_order, &order) != 0 || kv_audit(w->kv, &audit) != KV_OK)
        return -1;
    uint64_t extra = order.count > present ? order.count - present : 0;
    uint64_t few = order.count < present ? present - order.count : 0;
    v->lost += few + audit.torn;
    v->leaked += audit.unnamed + extra + order.faults;
    if (audit.named_blocks != audit.records)
        v->lost += 1;
    v->live_bytes = audit.live_bytes;
    v->other_blocks = audit.other_blocks;
    if (few + extra + order.faults + audit.torn + audit.unnamed > 0 || audit.named_blocks != audit.records)
        fprintf(stderr,
                "expected %llu records; the index has %llu keys (%llu out of order), %llu with a damaged block; "
                "blocks: %llu of records, %llu that no key names\n",
                (unsigned long long)present, (unsigned long long)order.count, (unsigned long long)order.faults,
                (unsigned long long)audit.torn, (unsigned long long)audit.named_blocks,
                (unsigned long long)audit.unnamed);
    return 0;
}

int work_verify(struct work *w, struct work_verdict *v)
{
    uint64_t present = 0;
    for (uint32_t i = 0; i < w->input->record_count; i++) {
        const work_state *may_be = NULL;
        for (unsigned t = 0; t < w->threads; t++)
            if (w->journal[t].record == (uint64_t)i + 1)
                may_be = &w->journal[t].after;
        v->in_flight += may_be != NULL;
        if (verify_record(w, i, may_be, v) < 0)
            return -1;
        present += is_present(w->states[i]);
    }
    memset(w->journal, 0, w->threads * sizeof *w->journal);
    return verify_blocks(w, present, v);
}

int work_first_put(struct work *w)
{
    uint32_t record = 0;
    for (unsigned t = 0; t < w->threads; t++) /* not one in flight: it is yet to be judged; each turn moves past one */
        for (unsigned u = 0; u < w->threads; u++)
            record += w->journal[u].record == (uint64_t)record + 1;
    if (record >= w->input->record_count)
        return 0;
    char value[KV_VALUE_MAX];
    work_state after = (w->states[record] | 1) + 2;
    const struct kv_line *line = &w->input->records[record];
    if (kv_put(w->kv, line->key, value, make_value(line, version_of(after), value)) != KV_OK)
        return -1;
    w->states[record] = after;
    return 0;
}

/* ---- set-up ---- */

static void *map_shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int work_init(struct work *w, const struct kv_input *input, unsigned threads, uint64_t seed, bool show_progress)
{
    *w = (struct work){.input = input, .threads = threads, .seed = seed, .show_progress = show_progress};
    w->states = map_shared(input->record_count * sizeof *w->states);
    w->journal = map_shared(threads * sizeof *w->journal);
    w->owned = calloc(threads, sizeof *w->owned);
    w->owned_count = calloc(threads, sizeof *w->owned_count);
    if (w->states == NULL || w->journal == NULL || w->owned == NULL || w->owned_count == NULL)
        goto fail;
    for (size_t i = 0; i < input->record_count; i++)
        w->owned_count[owner_of(w, input->records[i].key)]++;
    for (unsigned t = 0; t < threads; t++) {
        w->owned[t] = malloc((w->owned_count[t] + 1) * sizeof **w->owned);
        if (w->owned[t] == NULL)
            goto fail;
        w->owned_count[t] = 0;
    }
    for (size_t i = 0; i < input->record_count; i++) {
        unsigned t = owner_of(w, input->records[i].key);
        w->owned[t][w->owned_count[t]++] = (uint32_t)i;
    }
    return 0;
fail:
    work_fini(w);
    return -1;
}

void work_fini(struct work *w)
{
    for (unsigned t = 0; w->owned != NULL && t < w->threads; t++)
        free(w->owned[t]);
    free(w->owned);
    free(w->owned_count);
    if (w->states != NULL)
        munmap(w->states, w->input->record_count * sizeof *w->states);
    if (w->journal != NULL)
        munmap(w->journal, w->threads * sizeof *w->journal);
}

void work_progress(const char *phase, double fraction)
{
    char bar[41];
    if (fraction > 1)
        fraction = 1;
    int full = (int)(fraction * 40);
    memset(bar, ' ', 40);
    memset(bar, '#', (size_t)full);
    bar[40] = 0;
    fprintf(stderr, "\r%-14s [%s] %3.0f %%", phase, bar, fraction * 100);
    fflush(stderr);
}

void work_progress_end(void)
{
    fprintf(stderr, "\r%-64s\r", "");
    fflush(stderr);
}
