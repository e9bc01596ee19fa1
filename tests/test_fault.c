/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fault.c -- every file operation fails once, in turn, with each of the usual errors.
 *
 * A scenario runs a part of the interface on a pool whose n-th file operation from there on fails (or all from the n-th on),
 * for n = 1, 2, ... until none fails any more. Whatever it answers, the answer is honest: an error has its code and its
 * sentence, success means that the thing was done; and without the fault the pool is sound, has lost nothing and works.
 *
 * A failure is named "scenario operation-number errno once|onwards"; the options --operation, --errno and --onwards run one alone.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define OWNERS   400u
#define PREPARED 150u

struct fault {
    atomic_uint seen; /* operations so far */
    unsigned at;      /* the one to fail; 0 = none */
    int error_number;
    bool onwards; /* and all after it */
    atomic_uint fired;
    enum file_op op; /* the first that failed */
    char name[64];
    const char *site;
};

/* What runs now, for messages. */
static char context[200];

static int before(void *arg, enum file_op op, const char *name, const char *site)
{
    struct fault *f = arg;
    unsigned number = atomic_fetch_add(&f->seen, 1) + 1;
    if (f->at == 0 || number < f->at || (number > f->at && !f->onwards))
        return 0;
    if (atomic_fetch_add(&f->fired, 1) == 0) {
        f->op = op;
        f->site = site;
        snprintf(f->name, sizeof f->name, "%.63s", name);
        snprintf(context + strlen(context), sizeof context - strlen(context), " (op %d on \"%s\" at %s)", (int)op,
                 f->name, site);
    }
    return f->error_number;
}

/* An answer is honest: success, or the injected error's code with a sentence. */
static void honest(int r, const struct fault *f, const char *what)
{
    if (r == 0)
        return;
    EXPECT(atomic_load(&f->fired) > 0, "%s: %s without a fault: %s: %s", context, what, pa_strerror(r), pa_errormsg());
    EXPECT(r == error_from_errno(f->error_number), "%s: %s says %s, the fault was %s: %s", context, what,
           pa_strerror(r), strerror(f->error_number), pa_errormsg());
    EXPECT(sentence_is_good(NULL), "%s: %s: no good sentence: \"%s\"", context, what, pa_errormsg());
}

static void options_small(pa_options *o)
{
    pa_options_init(o);
    o->segment_size = 1u << 20;
    o->max_size = 6u << 20;
    o->cores = 2;
}

/* A pool of a few segments with holes in it; most owners are null yet. */
static void prepare(const char *dir)
{
    pa_options options;
    options_small(&options);
    pa_pool *pool = NULL;
    struct owners o;
    struct pool_params params = {.lane_entries = 64};
    CK_OK(pool_create_ex(dir, &options, &params, &pool));
    CK_OK(owners_open(&o, pool, OWNERS));
    for (size_t i = 0; i < PREPARED; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), 7000));
        block_fill(pa_direct(pool, *owners_at(&o, i)), 7000, i);
    }
    for (size_t i = 0; i < PREPARED; i += 3)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    CK_OK(pa_close(pool));
}

static void works(struct owners *o, const char *what)
{
    char message[256];
    EXPECT(owners_are_whole(o, message, sizeof message), "%s: %s: %s", context, what, message);
    for (size_t i = 0; i < o->count; i++) {
        pa_pptr p = *owners_at(o, i);
        if (!pa_is_null(p))
            EXPECT(block_is(pa_direct(o->pool, p), 7000, i), "%s: %s: contents of block %zu", context, what, i);
    }
    for (size_t i = 0; i < 20; i++) {
        int r = pa_deallocate(o->pool, owners_at(o, i));
        EXPECT(r == 0, "%s: %s: deallocate: %s", context, what, pa_errormsg());
        r = pa_allocate(o->pool, owners_at(o, i), 7000);
        EXPECT(r == 0, "%s: %s: allocate: %s", context, what, pa_errormsg());
        block_fill(pa_direct(o->pool, *owners_at(o, i)), 7000, i);
    }
}

static void check_sound(const char *dir, const char *what)
{
    char *report = NULL;
    int r = pa_check(dir, &report);
    EXPECT(r == 0, "%s: %s: pa_check: %s: %s", context, what, pa_strerror(r), report == NULL ? "" : report);
    free(report);
}

/* Without any fault: sound, whole, and working.  */
static void aftermath(const char *dir)
{
    pa_pool *pool = NULL;
    struct owners o;
    check_sound(dir, "before the reopen");
    int r = pa_open(dir, NULL, &pool);
    EXPECT(r == 0, "%s: reopen: %s", context, pa_errormsg());
    CK_OK(owners_open(&o, pool, OWNERS));
    works(&o, "after the reopen");
    CK_OK(pa_close(pool));
    check_sound(dir, "at the end");
}

static pa_pool *open_with(const char *dir, const struct file_hooks *hooks, unsigned flags, int *ret)
{
    pa_options options;
    pa_options_init(&options);
    options.cores = 2;
    options.flags = flags;
    pa_pool *pool = NULL;
    struct pool_params params = {.hooks = hooks};
    sentence_forget();
    *ret = pool_open_ex(dir, &options, &params, &pool);
    EXPECT((*ret == 0) == (pool != NULL), "%s: open's result and output disagree", context);
    return pool;
}

/* --- scenarios: prepare the directory without faults, then run with them ----------------------------------------------------- */

static void scenario_create(const char *dir, struct fault *f, const struct file_hooks *hooks)
{
    pa_options options;
    options_small(&options);
    pa_pool *pool = NULL;
    struct pool_params params = {.lane_entries = 64, .hooks = hooks};
    sentence_forget();
    int r = pool_create_ex(dir, &options, &params, &pool);
    honest(r, f, "create");
    if (r == 0) {
        r = pa_close(pool);
        honest(r, f, "close");
        check_sound(dir, "created");
    } else {
        EXPECT(pool == NULL, "%s: create failed but gave a pool", context);
        /* Taken again, unless the failure came after the pool was complete. */
        r = pa_create(dir, &options, &pool);
        if (r == PA_EEXIST)
            r = pa_open(dir, NULL, &pool);
        EXPECT(r == 0, "%s: create again: %s", context, pa_errormsg());
        CK_OK(pa_close(pool));
    }
    aftermath(dir);
}

static void scenario_open(const char *dir, struct fault *f, const struct file_hooks *hooks)
{
    int r;
    pa_pool *pool = open_with(dir, hooks, 0, &r);
    honest(r, f, "open");
    if (pool != NULL)
        honest(pa_close(pool), f, "close");
    aftermath(dir);
}

static void scenario_open_read_only(const char *dir, struct fault *f, const struct file_hooks *hooks)
{
    int r;
    uint64_t hash = temp_hash_dir(dir);
    pa_pool *pool = open_with(dir, hooks, PA_READ_ONLY, &r);
    honest(r, f, "open");
    if (pool != NULL)
        honest(pa_close(pool), f, "close");
    EXPECT(temp_hash_dir(dir) == hash, "%s: a read-only open changed the files", context);
    aftermath(dir);
}

/* Grow to the limit and come back to nothing; the fault strikes somewhere in between. */
static void scenario_grow_and_shrink(const char *dir, struct fault *f, const struct file_hooks *hooks)
{
    int r;
    unsigned at = f->at;
    f->at = 0;
    pa_pool *pool = open_with(dir, hooks, 0, &r);
    EXPECT(r == 0, "%s: open: %s", context, pa_errormsg());
    struct owners o;
    CK_OK(owners_open(&o, pool, OWNERS));
    atomic_store(&f->seen, 0);
    f->at = at;
    for (size_t i = 0; i < OWNERS; i++) {
        if (!pa_is_null(*owners_at(&o, i)))
            continue;
        sentence_forget();
        r = pa_allocate(pool, owners_at(&o, i), 7000);
        honest(r, f, "allocate");
        EXPECT((r == 0) == !pa_is_null(*owners_at(&o, i)), "%s: allocate: %s and the owner disagree", context,
               pa_strerror(r));
        if (r == 0)
            block_fill(pa_direct(pool, *owners_at(&o, i)), 7000, i);
    }
    for (size_t i = 0; i < OWNERS; i++) {
        r = pa_deallocate(pool, owners_at(&o, i));
        EXPECT(r == 0, "%s: deallocate: %s", context, pa_errormsg());
    }
    for (size_t i = 0; i < OWNERS; i++) {
        sentence_forget();
        r = pa_allocate(pool, owners_at(&o, i), 7000);
        honest(r, f, "allocate again");
        if (r == 0)
            block_fill(pa_direct(pool, *owners_at(&o, i)), 7000, i);
    }
    f->at = 0;
    works(&o, "the same handle without the fault");
    honest(pa_close(pool), f, "close");
    aftermath(dir);
}

static void scenario_first_growth(const char *dir, struct fault *f, const struct file_hooks *hooks)
{
    int r;
    unsigned at = f->at;
    f->at = 0;
    pa_pool *pool = open_with(dir, hooks, 0, &r);
    EXPECT(r == 0, "%s: open: %s", context, pa_errormsg());
    atomic_store(&f->seen, 0);
    f->at = at;
    pa_pptr root = {7, 7};
    sentence_forget();
    r = pa_root(pool, 1024, &root);
    honest(r, f, "root");
    ck_assert(r == 0 || root.segment == 7);
    f->at = 0;
    struct owners o;
    r = owners_open(&o, pool, OWNERS);
    EXPECT(r == 0, "%s: root without the fault: %s", context, pa_errormsg());
    works(&o, "the same handle without the fault");
    honest(pa_close(pool), f, "close");
    aftermath(dir);
}

static void scenario_close(const char *dir, struct fault *f, const struct file_hooks *hooks)
{
    int r;
    unsigned at = f->at;
    f->at = 0;
    pa_pool *pool = open_with(dir, hooks, 0, &r);
    EXPECT(r == 0, "%s: open: %s", context, pa_errormsg());
    struct owners o;
    CK_OK(owners_open(&o, pool, OWNERS));
    works(&o, "before close");
    for (size_t i = 0; i < OWNERS; i++)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    atomic_store(&f->seen, 0);
    f->at = at;
    pa_stats stats;
    sentence_forget();
    honest(pa_get_stats(pool, &stats), f, "stats");
    sentence_forget();
    honest(pa_close(pool), f, "close");
    aftermath(dir);
}

/* --- what the scenarios start from -------------------------------------------------------------------------------------------- */

static void from_nothing(const char *source, const char *dir)
{
    (void)source;
    (void)dir;
}

static void from_empty_pool(const char *source, const char *dir)
{
    (void)source;
    pa_options options;
    options_small(&options);
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir, &options, &pool));
    CK_OK(pa_close(pool));
}

static void from_closed_pool(const char *source, const char *dir)
{
    temp_copy_dir(source, dir);
}

/* What a killed process leaves, with a segment file that nobody announced besides. */
static void from_killed_pool(const char *source, const char *dir)
{
    struct temp_path live = temp_new();
    temp_copy_dir(source, live.text);
    pa_pool *pool = pool_reopen(live.text);
    struct owners o;
    CK_OK(owners_open(&o, pool, OWNERS));
    for (size_t i = 0; i < PREPARED; i += 3) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), 7000));
        block_fill(pa_direct(pool, *owners_at(&o, i)), 7000, i);
    }
    temp_copy_dir(live.text, dir);
    CK_OK(pa_close(pool));
    temp_remove(live.text);
}

struct scenario {
    const char *name;
    void (*from)(const char *source, const char *dir);
    void (*run)(const char *dir, struct fault *f, const struct file_hooks *hooks);
};

/* One run; false when the scenario has fewer operations than that. */
static bool run_one(const struct scenario *s, const char *source, unsigned at, int error_number, bool onwards)
{
    struct temp_path dir = temp_new();
    s->from(source, dir.text);
    struct fault f = {.at = at, .error_number = error_number, .onwards = onwards};
    struct file_hooks hooks = {.context = &f, .before = before};
    snprintf(context, sizeof context, "%s %u %s %s", s->name, at, strerrorname_np(error_number),
             onwards ? "onwards" : "once");
    unsigned descriptors = process_descriptors();
    uint64_t space = process_address_space();
    s->run(dir.text, &f, &hooks);
    EXPECT(process_descriptors() == descriptors, "%s: a descriptor stays open", context);
    EXPECT(process_address_space() < space + 1024, "%s: address space is not given back", context);
    temp_remove(dir.text);
    return atomic_load(&f.fired) > 0;
}

static void run_scenario(const struct scenario *s)
{
    static const int errors[] = {ENOSPC, EMFILE, EACCES, EINTR, EIO};
    struct temp_path source = temp_new();
    prepare(source.text);
    unsigned only = (unsigned)run_option("operation", 0), runs = 0;
    int only_errno = (int)run_option("errno", 0);
    uint64_t only_onwards = run_option("onwards", 2);
    for (size_t e = 0; e < sizeof errors / sizeof *errors; e++)
        for (unsigned onwards = 0; onwards < 2; onwards++) {
            /* A signal does not interrupt for ever. */
            if ((errors[e] == EINTR && onwards != 0) || (only_errno != 0 && errors[e] != only_errno) ||
                (only_onwards < 2 && only_onwards != onwards))
                continue;
            for (unsigned at = only == 0 ? 1 : only; run_one(s, source.text, at, errors[e], onwards != 0); at++) {
                runs++;
                EXPECT(at < 500, "%s: no end", context);
                if (only != 0)
                    break;
            }
        }
    fprintf(stderr, "fault: %s: %u faults\n", s->name, runs);
    EXPECT(runs > 0, "%s: no file operation was seen", s->name);
}

#define SCENARIO(test, from, run)                                                                                      \
    START_TEST(test)                                                                                                   \
    {                                                                                                                  \
        static const struct scenario s = {#test, from, run};                                                           \
        run_scenario(&s);                                                                                              \
    }                                                                                                                  \
    END_TEST

SCENARIO(create_survives_every_fault, from_nothing, scenario_create)
SCENARIO(open_of_a_closed_pool_survives_every_fault, from_closed_pool, scenario_open)
SCENARIO(open_of_a_killed_pool_survives_every_fault, from_killed_pool, scenario_open)
SCENARIO(read_only_open_survives_every_fault, from_closed_pool, scenario_open_read_only)
SCENARIO(read_only_open_of_a_killed_pool_survives_every_fault, from_killed_pool, scenario_open_read_only)
SCENARIO(growing_and_shrinking_survive_every_fault, from_closed_pool, scenario_grow_and_shrink)
SCENARIO(the_first_growth_survives_every_fault, from_empty_pool, scenario_first_growth)
SCENARIO(close_survives_every_fault, from_closed_pool, scenario_close)

static void add(Suite *s)
{
    ADD(s, create_survives_every_fault, 60);
    ADD(s, open_of_a_closed_pool_survives_every_fault, 60);
    ADD(s, open_of_a_killed_pool_survives_every_fault, 60);
    ADD(s, read_only_open_survives_every_fault, 60);
    ADD(s, read_only_open_of_a_killed_pool_survives_every_fault, 60);
    ADD(s, growing_and_shrinking_survive_every_fault, 120);
    ADD(s, the_first_growth_survives_every_fault, 60);
    ADD(s, close_survives_every_fault, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "fault", add);
}
