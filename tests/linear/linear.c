/* SPDX-License-Identifier: BSD-3-Clause */
/* linear.c -- see linear.h. */
#include "tests/linear/linear.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What may be so at some moment. */
struct config {
    uint64_t value[LINEAR_KEYS]; /* 0 = absent */
    uint64_t effective;          /* bit t: thread t's call in progress has taken effect */
};

struct search {
    struct config *at;
    size_t count, room, most;
    const struct linear_call *pending[LINEAR_THREADS];
};

static void add(struct search *s, const struct config *c)
{
    for (size_t i = 0; i < s->count; i++)
        if (memcmp(&s->at[i], c, sizeof *c) == 0)
            return;
    if (s->count == s->room) {
        s->room = s->room == 0 ? 64 : 2 * s->room;
        s->at = realloc(s->at, s->room * sizeof *s->at);
    }
    s->at[s->count++] = *c;
}

/* Could the call give what it gave in this state? Then c becomes the state after it. */
static bool apply(struct config *c, const struct linear_call *call)
{
    uint64_t *value = &c->value[call->key], before = *value;
    switch ((enum linear_op)call->op) {
    case LINEAR_INSERT:
        if (call->done)
            *value = call->value[0];
        return call->done == (before == 0);
    case LINEAR_UPSERT:
        *value = call->value[0];
        return true;
    case LINEAR_FIND:
        return before == (call->done ? call->value[0] : 0);
    case LINEAR_REMOVE:
        *value = 0;
        return call->done == (before != 0);
    case LINEAR_SCAN:
        return memcmp(c->value, call->value, sizeof c->value) == 0;
    }
    return false;
}

/* Thread t's call returns: only the configurations stay in which it has taken effect, or can do so now, after others. */
static void take_effect(struct search *s, unsigned t)
{
    for (size_t i = 0; i < s->count; i++) { /* grows meanwhile */
        if ((s->at[i].effective >> t & 1) != 0)
            continue;
        for (unsigned u = 0; u < LINEAR_THREADS; u++) {
            struct config next = s->at[i];
            if (s->pending[u] == NULL || (next.effective >> u & 1) != 0 || !apply(&next, s->pending[u]))
                continue;
            next.effective |= UINT64_C(1) << u;
            add(s, &next);
        }
    }
    if (s->count > s->most)
        s->most = s->count;
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++)
        if ((s->at[i].effective >> t & 1) != 0) {
            s->at[kept] = s->at[i];
            s->at[kept++].effective &= ~(UINT64_C(1) << t);
        }
    s->count = kept;
}

static int by_invocation(const void *a, const void *b)
{
    const struct linear_call *x = a, *y = b;
    return x->invoked < y->invoked ? -1 : x->invoked > y->invoked;
}

/* Of the calls in progress, the one that returns first; NULL = none. */
static const struct linear_call *next_return(const struct search *s)
{
    const struct linear_call *next = NULL;
    for (unsigned t = 0; t < LINEAR_THREADS; t++)
        if (s->pending[t] != NULL && (next == NULL || s->pending[t]->returned < next->returned))
            next = s->pending[t];
    return next;
}

const struct linear_call *linear_check(struct linear_call *calls, size_t n, size_t *ret_most)
{
    struct search s = {.count = 0};
    const struct linear_call *failed = NULL;
    qsort(calls, n, sizeof *calls, by_invocation);
    add(&s, &(struct config){.effective = 0});
    for (size_t i = 0;;) {
        const struct linear_call *first = next_return(&s);
        if (i < n && (first == NULL || calls[i].invoked < first->returned)) {
            s.pending[calls[i].thread] = &calls[i];
            i++;
            continue;
        }
        if (first == NULL)
            break;
        take_effect(&s, first->thread);
        s.pending[first->thread] = NULL;
        if (s.count == 0) {
            failed = first;
            break;
        }
    }
    if (ret_most != NULL)
        *ret_most = s.most;
    free(s.at);
    return failed;
}

void linear_print(FILE *to, const struct linear_call *calls, size_t n, const struct linear_call *failed)
{
    static const char *const names[] = {"insert", "upsert", "find", "remove", "scan"};
    size_t at = (size_t)(failed - calls);
    for (size_t i = at < 16 ? 0 : at - 16; i < n && calls[i].invoked < failed->returned; i++) {
        const struct linear_call *c = &calls[i];
        fprintf(to, "%s thread %u: %s key %u", c == failed ? "->" : "  ", c->thread, names[c->op], c->key);
        for (unsigned k = 0; k < (c->op == LINEAR_SCAN ? LINEAR_KEYS : 1); k++)
            fprintf(to, " %#" PRIx64, c->value[k]);
        fprintf(to, "%s [%" PRIu64 ", %" PRIu64 "]\n", c->done ? ", done" : ", not done", c->invoked, c->returned);
    }
}
