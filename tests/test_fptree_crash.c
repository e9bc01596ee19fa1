/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fptree_crash.c -- the tree's protocols cut at every step, on a space in ordinary memory.
 *
 * A history of operations runs with recording on. At every store, write-back and fence, crash states are made of what may have
 * arrived; each is opened (which recovers), and must hold exactly the keys of before or of after the operation in flight, leak no
 * leaf, and go on working. Some recoveries are cut themselves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fptree/fake_space.h"
#include "tests/support/random.h"
#include "tests/support/run.h"

#define KEYS 128u /* keys of a history: 0 .. KEYS - 1, spread by key_of */

struct model {
    uint64_t value[KEYS]; /* 0 = not there */
};

struct history {
    struct fake *fake;
    struct random random;
    struct model before, after;
    uint64_t states, cuts, deep; /* states judged; moments; states of cut recoveries */
    unsigned lottery;            /* one of so many recoveries is cut */
    bool in_recovery, quiet;
    uint64_t failures; /* with quiet: counted, not reported */
    const char *omit;  /* in recoveries too */
};

static uint64_t key_of(unsigned i)
{
    return i == KEYS - 1 ? UINT64_MAX : (uint64_t)i * 0x0101010101010101;
}

/* --- judging one state -------------------------------------------------------------------------------------------------- */

static const char *differs(const struct tree *t, const struct model *m)
{
    for (unsigned i = 0; i < KEYS; i++) {
        uint64_t value = 0;
        int code = tree_find(t, key_of(i), &value);
        if (code != (m->value[i] == 0 ? PA_ENOENT : 0))
            return code == 0 ? "a key is there that was never inserted, or was removed" : "a key is lost";
        if (value != m->value[i])
            return "a key has a value it must not have";
    }
    return NULL;
}

/* The tree works on: a few changes, the leaves given back at the end. */
static const char *goes_on(struct history *h, struct fake *f, struct tree *t)
{
    for (unsigned n = 0; n < 12; n++) {
        unsigned i = (unsigned)random_below(&h->random, KEYS);
        if (tree_upsert(t, key_of(i), 77) != 0)
            return "a change after the crash failed";
    }
    if (tree_check(t, NULL) != 0)
        return pa_errormsg();
    for (unsigned i = 0; i < KEYS; i++)
        tree_remove(t, key_of(i));
    struct tree_counts c;
    if (tree_check(t, &c) != 0)
        return pa_errormsg();
    if (c.entries != 0)
        return "emptied after the crash, the tree keeps keys";
    /* Spares stay: we are inside a reader's section of the operation that was cut. */
    return f->allocated != c.spares ? "emptied after the crash, the tree keeps leaves" : NULL;
}

static const char *judge(struct history *h, struct fake *f)
{
    struct tree *t = NULL;
    if (tree_open(&f->space, FAKE_HEADER, TREE_RULE_SELF, &t) != 0)
        return pa_errormsg();
    const char *finding = tree_check(t, NULL) != 0 ? pa_errormsg() : fake_leaks(f, t);
    if (finding == NULL && differs(t, &h->before) != NULL)
        finding = differs(t, &h->after);
    if (finding == NULL && h->states % 8 == 0)
        finding = goes_on(h, f, t);
    f->fail_after = UINT32_MAX;
    tree_close(t);
    return finding;
}

/* --- making states ------------------------------------------------------------------------------------------------------ */

enum kind { NOTHING, EVERYTHING, ALONE, ALL_BUT, PREFIXES };

struct pick {
    struct random *random;
    enum kind kind;
    size_t line;
};

static uint32_t kept(void *arg, size_t line, uint32_t count)
{
    const struct pick *p = arg;
    switch (p->kind) {
    case NOTHING:
        return 0;
    case EVERYTHING:
        return count;
    case ALONE:
        return line == p->line ? count : 0;
    case ALL_BUT:
        return line == p->line ? (uint32_t)random_below(p->random, count) : count;
    default:
        return (uint32_t)random_below(p->random, count + 1);
    }
}

static void moment(struct fake *f, void *arg);
static void step(struct history *h, struct tree *t, unsigned i, uint64_t value);

/* What an open has found must be found by all later ones, whatever is cut after it. Inserts and removals near each other, so that
 * leaves that were never locked since the crash are. */
static void go_on(struct history *h, struct fake *f, struct tree *t)
{
    struct model before = h->before, after = h->after;
    if (differs(t, &h->before) != NULL)
        h->before = h->after;
    h->after = h->before;
    moment(f, h);
    unsigned first = (unsigned)random_below(&h->random, KEYS);
    for (unsigned n = 0; n < 6 && differs(t, &h->before) == NULL; n++) {
        unsigned i = (first + (unsigned)random_below(&h->random, 8)) % KEYS;
        step(h, t, i, random_below(&h->random, 3) != 0 ? random_next(&h->random) | 1 : 0);
    }
    h->before = before;
    h->after = after;
}

/* Cuts the recovery of a state, and what follows, at every step. pick NULL: only the process died. */
static void cut_recovery(struct history *h, const struct fake *f, struct pick *pick)
{
    struct random saved = h->random;
    struct tree *t = NULL;
    struct fake *c = pick == NULL ? fake_kill(f, NULL, h) : fake_crash(f, kept, pick);
    c->omit = h->omit;
    c->sites = h->fake->sites;
    c->site_count = h->fake->site_count;
    c->site_room = h->fake->site_room;
    h->in_recovery = true;
    if (pick == NULL)
        c->moment = moment;
    else
        fake_record(c, moment, h);
    if (tree_open(&c->space, FAKE_HEADER, TREE_RULE_SELF, &t) == 0)
        go_on(h, c, t);
    fake_stop(c);
    h->fake->site_count = c->site_count;
    h->in_recovery = false;
    if (t != NULL)
        tree_close(t);
    fake_delete(c);
    h->random = saved;
    random_next(&h->random);
}

static void try_state(struct history *h, const struct fake *f, enum kind kind, size_t line)
{
    struct pick pick = {&h->random, kind, line};
    uint64_t state = h->random.state;
    struct fake *c = fake_crash(f, kept, &pick);
    const char *finding = judge(h, c);
    fake_delete(c);
    h->states++;
    h->deep += h->in_recovery;
    if (finding != NULL && h->quiet)
        h->failures++;
    EXPECT(finding == NULL || h->quiet, "event %llu, state %d/%zu (random %#llx): %s", (unsigned long long)f->events,
           kind, line, (unsigned long long)state, finding);
    if (!h->in_recovery && finding == NULL && random_below(&h->random, h->lottery) == 0) {
        h->random.state = state;
        cut_recovery(h, f, &pick);
    }
}

static void moment(struct fake *f, void *arg)
{
    struct history *h = arg;
    if (h->failures != 0)
        return;
    h->cuts++;
    try_state(h, f, NOTHING, 0);
    try_state(h, f, EVERYTHING, 0);
    unsigned tries = h->in_recovery ? 3 : 1;
    size_t lines = f->line_count;
    for (unsigned i = 0; i < tries && lines > 0; i++) {
        try_state(h, f, ALONE, random_below(&h->random, lines));
        try_state(h, f, ALL_BUT, random_below(&h->random, lines));
        try_state(h, f, PREFIXES, 0);
    }
    if (!h->in_recovery && (f->events < 40 || random_below(&h->random, h->lottery) == 0))
        cut_recovery(h, f, NULL);
    /* Just before a fence the choice is widest. */
    for (size_t i = 0; i < lines && f->at_drain; i++) {
        try_state(h, f, ALONE, i);
        try_state(h, f, ALL_BUT, i);
        try_state(h, f, PREFIXES, 0);
    }
}

/* --- histories ---------------------------------------------------------------------------------------------------------- */

static void history_init(struct history *h, unsigned lottery)
{
    memset(h, 0, sizeof *h);
    h->random.state = run_seed();
    h->lottery = lottery;
    h->fake = fake_new(24);
}

static void step(struct history *h, struct tree *t, unsigned i, uint64_t value)
{
    h->after.value[i] = value;
    int code = value == 0 ? tree_remove(t, key_of(i)) : tree_upsert(t, key_of(i), value);
    EXPECT(code == 0 || (value == 0 && h->before.value[i] == 0), "step: %s", pa_errormsg());
    h->before = h->after;
}

static void report(const struct history *h, const char *what)
{
    printf("%s: %llu moments, %llu crash states (%llu inside recovery), seed %llu\n", what, (unsigned long long)h->cuts,
           (unsigned long long)h->states, (unsigned long long)h->deep, (unsigned long long)run_seed());
}

/* Random changes that make the tree grow and shrink, so that leaves split and merge. */
static void run_random(struct history *h, unsigned steps, unsigned phase)
{
    struct tree *t = NULL;
    fake_record(h->fake, moment, h);
    CK_OK(tree_open(&h->fake->space, FAKE_HEADER, TREE_RULE_SELF, &t));
    for (unsigned n = 0; n < steps; n++) {
        bool grow = n / phase % 2 == 0;
        bool add = random_below(&h->random, 10) < (grow ? 8u : 1u);
        step(h, t, (unsigned)random_below(&h->random, KEYS), add ? random_next(&h->random) | 1 : 0);
    }
    tree_close(t);
    fake_stop(h->fake);
}

/* Each write-back and each fence is left out in turn, and somebody must notice: proof that the states above can show it. */
START_TEST(crash__shows_each_missing_write_back_and_fence)
{
    const char *sites[64];
    struct history h;
    history_init(&h, 50);
    h.fake->sites = sites;
    h.fake->site_room = 64;
    unsigned steps = (unsigned)run_option("steps", 500);
    run_random(&h, steps, 250);
    size_t count = h.fake->site_count, survivors = 0;
    fake_delete(h.fake);
    ck_assert_uint_lt(count, 64);
    for (size_t i = 0; i < count; i++) {
        uint64_t states = 0;
        bool seen = false;
        for (unsigned round = 0; round < 4 && !seen; round++) {
            history_init(&h, round == 0 ? 500 : 60);
            h.random.state += round;
            h.quiet = true;
            h.omit = sites[i];
            h.fake->omit = sites[i];
            run_random(&h, steps, 250);
            states += h.states;
            seen = h.failures != 0;
            fake_delete(h.fake);
        }
        printf("without %s: %s after %llu states\n", sites[i], seen ? "noticed" : "NOT NOTICED",
               (unsigned long long)states);
        survivors += !seen;
    }
    ck_assert_uint_eq(survivors, 0);
}
END_TEST

START_TEST(crash__in_random_changes)
{
    struct history h;
    history_init(&h, 200);
    run_random(&h, (unsigned)run_option("steps", 700), 250);
    report(&h, "random changes");
    fake_delete(h.fake);
}
END_TEST

START_TEST(crash__in_ascending_inserts_and_removals)
{
    struct history h;
    struct tree *t = NULL;
    history_init(&h, 200);
    CK_OK(tree_open(&h.fake->space, FAKE_HEADER, TREE_RULE_SELF, &t));
    fake_record(h.fake, moment, &h);
    for (unsigned i = 0; i < KEYS; i++)
        step(&h, t, i, i + 1);
    for (unsigned i = 0; i < KEYS; i++)
        step(&h, t, i, 0);
    ck_assert_uint_eq(h.fake->allocated, 0);
    for (unsigned i = KEYS; i-- > 0;)
        step(&h, t, i, i + 1);
    for (unsigned i = KEYS; i-- > 0;)
        step(&h, t, i, 0);
    tree_close(t);
    fake_stop(h.fake);
    report(&h, "ascending and descending changes");
    fake_delete(h.fake);
}
END_TEST

START_TEST(crash__in_creation_and_open)
{
    struct history h;
    history_init(&h, 100);
    fake_record(h.fake, moment, &h);
    for (unsigned round = 0; round < 3; round++) {
        struct tree *t = NULL;
        CK_OK(tree_open(&h.fake->space, FAKE_HEADER, TREE_RULE_SELF, &t));
        for (unsigned i = 0; i < 60; i += 1 + round)
            step(&h, t, i, round + 1);
        tree_close(t);
    }
    fake_stop(h.fake);
    report(&h, "creation and open");
    fake_delete(h.fake);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, crash__in_creation_and_open, 120);
    ADD(s, crash__in_random_changes, 300);
    ADD(s, crash__shows_each_missing_write_back_and_fence, 600);
    ADD(s, crash__in_ascending_inserts_and_removals, 300);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "fptree_crash", add);
}
