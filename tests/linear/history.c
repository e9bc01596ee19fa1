/* SPDX-License-Identifier: BSD-3-Clause */
/* history.c -- see history.h. */
#include "tests/linear/history.h"

#include <pallocator.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/run.h"

/* A full barrier for the processor, so that nothing of a call is done outside of its two numbers; no order for the race detector. */
static uint64_t now(struct history *h)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#if !defined(__x86_64__) /* there the locked addition is one */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    uint64_t n = __atomic_fetch_add(&h->clock, 1, __ATOMIC_RELAXED);
#if !defined(__x86_64__)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return n;
}

void history_init(struct history *h, const struct history_map *map, uint64_t key_count, bool whole, uint64_t seed)
{
    memset(h, 0, sizeof *h);
    h->map = *map;
    h->key_count = key_count;
    h->whole = whole;
    for (unsigned i = 0; i < HISTORY_THREADS; i++) {
        h->thread[i].history = h;
        h->thread[i].number = i;
        h->thread[i].random.state = seed + i;
    }
}

void history_fini(struct history *h)
{
    for (unsigned i = 0; i < HISTORY_THREADS; i++)
        free(h->thread[i].at);
}

void history_run(struct history *h, unsigned threads, void *(*body)(void *))
{
    pthread_t thread[HISTORY_THREADS];
    for (unsigned i = 0; i < threads; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, body, &h->thread[i]), 0);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
}

static struct linear_call *note(struct history_thread *t, uint64_t key)
{
    if (t->count == t->room) {
        t->room = t->room == 0 ? 1024 : 2 * t->room;
        t->at = realloc(t->at, t->room * sizeof *t->at);
    }
    struct history_entry *e = &t->at[t->count++];
    memset(e, 0, sizeof *e);
    e->key = key;
    e->call.thread = (uint8_t)t->number;
    e->call.key = t->history->whole ? (uint8_t)key : 0;
    return &e->call;
}

void history_call(struct history_thread *t, enum linear_op op, uint64_t key)
{
    struct history *h = t->history;
    const struct history_map *m = &h->map;
    struct linear_call *c = note(t, key);
    uint64_t value = op == LINEAR_INSERT || op == LINEAR_UPSERT ? (uint64_t)(t->number + 1) << 40 | ++t->values : 0;
    int code = 0, failure = op == LINEAR_INSERT ? PA_EEXIST : op == LINEAR_UPSERT ? 0 : PA_ENOENT;
    uint64_t invoked = now(h);
    switch (op) {
    case LINEAR_INSERT:
        code = m->insert(m->map, key, value);
        break;
    case LINEAR_UPSERT:
        code = m->upsert(m->map, key, value);
        break;
    case LINEAR_REMOVE:
        code = m->remove(m->map, key);
        break;
    default:
        code = m->find(m->map, key, &value);
        break;
    }
    uint64_t returned = now(h);
    EXPECT(code == 0 || code == failure, "operation %d on key %llu: %s", op, (unsigned long long)key, pa_errormsg());
    c->op = (uint8_t)op;
    c->invoked = invoked;
    c->returned = returned;
    c->value[0] = value;
    c->done = code == 0;
    t->calls++;
}

/* --- scans ---------------------------------------------------------------------------------------------------------------- */

/* Each key in range becomes a lookup: what the scan showed of it was so after the scan began, and after the visit that lies a leaf
 * before it; and before the scan visited it or, if it is absent, the next one. */
struct sweep {
    struct history_thread *t;
    uint64_t next;                /* keys below are told */
    uint64_t after[HISTORY_LEAF]; /* when the last visits had ended; a ring */
    uint64_t invoked;
    uint64_t seen_after; /* the earliest moment at which what was visited last may have been seen */
    unsigned visits, limit;
    struct linear_call whole;
};

static void note_seen(struct sweep *s, uint64_t key, uint64_t value, uint64_t invoked, uint64_t returned)
{
    struct linear_call *c = note(s->t, key);
    c->op = LINEAR_FIND;
    c->thread = (uint8_t)(s->t->number + HISTORY_THREADS);
    c->invoked = invoked;
    c->returned = returned;
    c->value[0] = value;
    c->done = value != 0;
}

/* The keys up to end are absent. They may have been seen with the one that was visited before them. */
static void note_absent(struct sweep *s, uint64_t end, uint64_t returned)
{
    for (; s->next < end; s->next++)
        note_seen(s, s->next, 0, s->seen_after, returned);
}

static int see(uint64_t key, uint64_t value, void *arg)
{
    struct sweep *s = arg;
    struct history *h = s->t->history;
    uint64_t returned = now(h);
    EXPECT(key >= s->next && key < h->key_count, "the scan is at key %llu, and key %llu was next",
           (unsigned long long)key, (unsigned long long)s->next);
    EXPECT(value != 0, "the scan shows a value that nobody wrote");
    if (h->whole) {
        s->whole.value[key] = value;
    } else {
        note_absent(s, key, returned);
        if (s->visits >= HISTORY_LEAF)
            s->seen_after = s->after[s->visits % HISTORY_LEAF];
        note_seen(s, key, value, s->seen_after, returned);
        if (random_below(&s->t->random, 32) == 0)
            history_call(s->t, random_below(&s->t->random, 2) == 0 ? LINEAR_FIND : LINEAR_UPSERT, key);
        s->after[s->visits % HISTORY_LEAF] = now(h);
    }
    s->next = key + 1;
    return ++s->visits == s->limit ? 77 : 0;
}

void history_scan(struct history_thread *t, uint64_t from, unsigned limit)
{
    struct history *h = t->history;
    struct sweep s = {.t = t, .next = h->whole ? 0 : from, .limit = limit};
    s.invoked = s.seen_after = now(h);
    int code = h->map.scan(h->map.map, s.next, see, &s);
    uint64_t returned = now(h);
    EXPECT(code == (s.visits == limit ? 77 : 0), "the scan gives %d after %u visits", code, s.visits);
    t->calls++;
    if (h->whole) {
        struct linear_call *c = note(t, 0);
        *c = s.whole;
        c->op = LINEAR_SCAN;
        c->thread = (uint8_t)t->number;
        c->invoked = s.invoked;
        c->returned = returned;
    } else if (code == 0) {
        note_absent(&s, h->key_count, returned);
    }
}

/* --- judgement ------------------------------------------------------------------------------------------------------------ */

static size_t total(const struct history *h)
{
    size_t n = 0;
    for (unsigned i = 0; i < HISTORY_THREADS; i++)
        n += h->thread[i].count;
    return n;
}

/* Moves all calls into one array, key by key; ret_end[k]: index behind those of key k. */
static struct linear_call *sort_by_key(const struct history *h, uint64_t objects, size_t *ret_end)
{
    struct linear_call *calls = malloc((total(h) + 1) * sizeof *calls);
    for (unsigned i = 0; i < HISTORY_THREADS; i++)
        for (size_t j = 0; j < h->thread[i].count; j++)
            ret_end[h->whole ? 0 : h->thread[i].at[j].key]++;
    for (uint64_t k = 1; k < objects; k++)
        ret_end[k] += ret_end[k - 1];
    for (unsigned i = 0; i < HISTORY_THREADS; i++)
        for (size_t j = 0; j < h->thread[i].count; j++) {
            const struct history_entry *e = &h->thread[i].at[j];
            calls[--ret_end[h->whole ? 0 : e->key]] = e->call;
        }
    for (uint64_t k = 0; k + 1 < objects; k++)
        ret_end[k] = ret_end[k + 1]; /* they have come down to where each begins */
    ret_end[objects - 1] = total(h);
    return calls;
}

uint64_t history_first_wrong(struct history *h, bool print)
{
    uint64_t objects = h->whole ? 1 : h->key_count, wrong = h->key_count;
    size_t *end = calloc(objects, sizeof *end), begin = 0;
    struct linear_call *calls = sort_by_key(h, objects, end);
    for (uint64_t k = 0; k < objects && wrong == h->key_count; k++) {
        const struct linear_call *failed = linear_check(calls + begin, end[k] - begin, NULL);
        if (failed != NULL) {
            wrong = k;
            if (print)
                linear_print(stderr, calls + begin, end[k] - begin, failed);
        }
        begin = end[k];
    }
    free(calls);
    free(end);
    return wrong;
}

void history_verify(struct history *h)
{
    uint64_t wrong = history_first_wrong(h, true);
    EXPECT(wrong == h->key_count, "the history of key %llu is not linearizable", (unsigned long long)wrong);
}

uint64_t history_calls(const struct history *h)
{
    uint64_t calls = 0;
    for (unsigned i = 0; i < HISTORY_THREADS; i++)
        calls += h->thread[i].calls;
    return calls;
}
