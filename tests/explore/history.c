/* SPDX-License-Identifier: BSD-3-Clause */
/* history.c -- see history.h. */
#include "tests/explore/history.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "tests/explore/state.h"

/* --- recording ----------------------------------------------------------------------------------------------------------- */

void history_from_here(struct history *h)
{
    h->from = h->trace.count;
}

void history_settle(struct history *h)
{
    recorder_settle(&h->recorder);
    history_from_here(h);
}

int history_fail(struct history *h, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (h->problem[0] == '\0')
        vsnprintf(h->problem, sizeof h->problem, format, arguments);
    va_end(arguments);
    return -1;
}

size_t history_begin(struct history *h, const char *format, ...)
{
    pthread_mutex_lock(&h->recorder.lock);
    if (h->ops_count == h->ops_capacity) {
        h->ops_capacity = h->ops_capacity == 0 ? 64 : h->ops_capacity * 2;
        h->ops = realloc(h->ops, h->ops_capacity * sizeof *h->ops);
        if (h->ops == NULL)
            abort();
    }
    size_t number = h->ops_count++;
    struct op *op = &h->ops[number];
    *op = (struct op){.begin = h->trace.count, .end = SIZE_MAX};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(op->what, sizeof op->what, format, arguments);
    va_end(arguments);
    recorder_mark_locked(&h->recorder, TRACE_BEGIN, number);
    pthread_mutex_unlock(&h->recorder.lock);
    return number;
}

void history_change(struct history *h, size_t number, uint32_t cell, struct value before, struct value after)
{
    pthread_mutex_lock(&h->recorder.lock);
    struct op *op = &h->ops[number];
    op->changes = realloc(op->changes, (op->changes_count + 1) * sizeof *op->changes);
    if (op->changes == NULL)
        abort();
    op->changes[op->changes_count++] = (struct change){cell, before, after};
    pthread_mutex_unlock(&h->recorder.lock);
}

void history_loose(struct history *h, size_t number)
{
    pthread_mutex_lock(&h->recorder.lock);
    h->ops[number].loose = true;
    pthread_mutex_unlock(&h->recorder.lock);
}

void history_end(struct history *h, size_t number)
{
    pthread_mutex_lock(&h->recorder.lock);
    h->ops[number].end = h->trace.count;
    recorder_mark_locked(&h->recorder, TRACE_END, number);
    pthread_mutex_unlock(&h->recorder.lock);
}

static cpu_set_t allowed;
static bool allowed_known;

void history_pin(unsigned n)
{
    if (!allowed_known)
        allowed_known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    int count = CPU_COUNT(&allowed);
    if (!allowed_known || count == 0)
        return;
    int skip = (int)(n % (unsigned)count);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || skip-- > 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

void history_unpin(void)
{
    if (allowed_known)
        sched_setaffinity(0, sizeof allowed, &allowed);
}

uint64_t history_random(struct history *h, uint64_t below)
{
    return random_next(&h->random) % below;
}

void history_fini(struct history *h)
{
    if (h->scenario->fini != NULL)
        h->scenario->fini(h);
    for (size_t i = 0; i < h->ops_count; i++)
        free(h->ops[i].changes);
    free(h->ops);
    recorder_fini(&h->recorder);
    trace_fini(&h->trace);
}

/* --- judging ------------------------------------------------------------------------------------------------------------- */

void judge_fail(struct judge *j, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (j->why[0] == '\0')
        vsnprintf(j->why, sizeof j->why, format, arguments);
    va_end(arguments);
}

static bool is_any(struct value x)
{
    return x.a == UINT64_MAX && x.b == UINT64_MAX;
}

/* Is what was found what was expected? */
static bool same(struct value found, struct value expected)
{
    return is_any(expected) || (found.a == expected.a && found.b == expected.b);
}

/* What the operations that had ended have made of each cell. */
struct expected {
    struct value value;
    const struct op *by; /* the operation that made it so */
    bool known, in_flight, loose;
    struct value found;
};

static struct expected *expect(const struct judge *j, uint32_t *ret_cells)
{
    const struct history *h = j->history;
    uint32_t cells = 0;
    for (size_t i = 0; i < h->ops_count; i++)
        for (uint32_t k = 0; k < h->ops[i].changes_count; k++)
            if (h->ops[i].changes[k].cell >= cells)
                cells = h->ops[i].changes[k].cell + 1;
    struct expected *e = calloc(cells + 1, sizeof *e);
    if (e == NULL)
        abort();
    for (size_t i = 0; i < h->ops_count; i++) {
        enum op_state state = op_state_at(&h->ops[i], j->event);
        for (uint32_t k = 0; k < h->ops[i].changes_count; k++) {
            const struct change *c = &h->ops[i].changes[k];
            struct expected *cell = &e[c->cell];
            if (!cell->known)
                cell->value = c->before;
            cell->known = true;
            if (state == OP_ENDED) {
                cell->value = c->after;
                cell->by = &h->ops[i];
            }
            cell->in_flight |= state == OP_IN_FLIGHT;
            cell->loose |= state == OP_IN_FLIGHT && h->ops[i].loose;
        }
    }
    *ret_cells = cells;
    return e;
}

/* All of an operation's cells old, or all new. */
static void judge_in_flight(struct judge *j, const struct op *op, const struct expected *e)
{
    bool all_before = true, all_after = true;
    for (uint32_t k = 0; k < op->changes_count; k++) {
        const struct change *c = &op->changes[k];
        all_before &= same(e[c->cell].found, c->before);
        all_after &= same(e[c->cell].found, c->after);
    }
    if (all_before || all_after)
        return;
    const struct change *c = &op->changes[0];
    for (uint32_t k = 0; k < op->changes_count; k++)
        if (!same(e[op->changes[k].cell].found, op->changes[k].before) ||
            !same(e[op->changes[k].cell].found, op->changes[k].after))
            c = &op->changes[k];
    judge_fail(
        j, "%s in flight is neither done nor undone: cell %u is {%llx, %llx}, was {%llx, %llx}, becomes {%llx, %llx}",
        op->what, c->cell, (unsigned long long)e[c->cell].found.a, (unsigned long long)e[c->cell].found.b,
        (unsigned long long)c->before.a, (unsigned long long)c->before.b, (unsigned long long)c->after.a,
        (unsigned long long)c->after.b);
}

static void judge_cell(struct judge *j, const struct cells *cells, uint32_t number, struct expected *e)
{
    /* What lies in a free block is nobody's. */
    if (!e->known || e->loose || (is_any(e->value) && !e->in_flight) || !cells->read(j, number, &e->found, cells->arg))
        return;
    j->cells = mix64(j->cells ^ mix64(number + 1) ^ mix64(e->found.a + 3 * mix64(e->found.b)));
    j->fingerprint = mix64(j->fingerprint ^ j->cells);
    if (!e->in_flight && !same(e->found, e->value))
        judge_fail(j, "cell %u is {%llx, %llx} but %s had made it {%llx, %llx}", number, (unsigned long long)e->found.a,
                   (unsigned long long)e->found.b, e->by == NULL ? "the beginning" : e->by->what,
                   (unsigned long long)e->value.a, (unsigned long long)e->value.b);
    if (cells->found != NULL)
        cells->found(j, number, e->found, cells->arg);
}

void judge_cells(struct judge *j, const struct cells *cells)
{
    uint32_t count;
    struct expected *e = expect(j, &count);
    for (uint32_t i = 0; i < count && j->why[0] == '\0'; i++)
        judge_cell(j, cells, i, &e[i]);
    for (size_t i = 0; i < j->history->ops_count && j->why[0] == '\0'; i++) {
        const struct op *op = &j->history->ops[i];
        if (op_state_at(op, j->event) == OP_IN_FLIGHT && op->changes_count > 0 && !op->loose)
            judge_in_flight(j, op, e);
    }
    free(e);
}
