/* SPDX-License-Identifier: BSD-3-Clause */
/* run.c -- see run.h. */
#include "tests/fault/run.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/fault/scenarios.h"
#include "tests/support/run.h"

/* --- what a failed call says ------------------------------------------------------------------------------------------------ */

/* Out of space and out of memory may be told by whoever had no other way left. */
static bool is_told_as_full(int r)
{
    return (r == PA_ENOSPC || r == PA_ENOMEM) &&
           (strstr(pa_errormsg(), "cannot grow") != NULL || strstr(pa_errormsg(), "limit") != NULL ||
            strstr(pa_errormsg(), "no memory") != NULL);
}

static void judge_sentence(const struct world *w, const struct fault *f, int r)
{
    const char *text = pa_errormsg();
    EXPECT(sentence_is_good(NULL), "%s: no good sentence: \"%s\"", world_context, text);
    if (is_told_as_full(r))
        return;
    if (fault_source_now() == FAULT_MEMORY) {
        EXPECT(strstr(text, "memory") != NULL || strstr(text, w->dir) != NULL, "%s: what of? \"%s\"", world_context,
               text);
        return;
    }
    EXPECT(strstr(text, w->dir) != NULL || strstr(text, "random") != NULL, "%s: where? \"%s\"", world_context, text);
    if (r == PA_ELOCKED)
        return;
    EXPECT(strstr(text, strerror(f->error_number)) != NULL || strstr(text, "out of memory") != NULL, "%s: why? \"%s\"",
           world_context, text);
    /* If the clean-up fails too, the sentence is still about the first failure. But for want of space there may have been another
     * attempt; and neither need the parent of an old directory be synced nor what a growth left over be given back at open. */
    bool optional = fault_source_now() == FAULT_FILE && (strcmp(f->name, "..") == 0 || f->op == FILE_OP_PUNCH);
    if (f->onwards && (r == PA_ENOSPC || r == PA_ENOMEM || optional))
        return;
    bool moved = strcmp(fault_verb(f), "rename") == 0 && strstr(text, "move") != NULL;
    EXPECT(moved || strstr(text, fault_verb(f)) != NULL, "%s: not about the first failure: \"%s\"", world_context,
           text);
    bool named = fault_source_now() != FAULT_FILE || f->op == FILE_OP_SYNC_DIR || strstr(text, f->name) != NULL;
    EXPECT(named, "%s: which file? \"%s\"", world_context, text);
}

/* An answer is honest: success, or the code of what failed. */
static void judge_answer(const struct world *w, const struct fault *f, int r)
{
    if (f->fired != 0)
        snprintf(world_context + strlen(world_context), sizeof world_context - strlen(world_context),
                 " = %s (%s \"%s\")", strerrorname_np(f->error_number), f->site, f->name);
    if (r == 0)
        return;
    EXPECT(f->fired != 0, "%s: %s without a fault: %s", world_context, pa_strerror(r), pa_errormsg());
    EXPECT(r == error_from_errno(f->error_number), "%s: %s, though the fault is %s: %s", world_context, pa_strerror(r),
           strerror(f->error_number), pa_errormsg());
    judge_sentence(w, f, r);
}

/* --- one run ----------------------------------------------------------------------------------------------------------------- */

static bool is_creation(const struct scenario *s)
{
    return s->image == IMAGE_NONE || s->image == IMAGE_LEFTOVER;
}

/* A failed creation leaves no pool, unless removing it failed as well; what was left over before may stay. */
static void judge_failed_creation(const struct scenario *s, struct world *w, const struct fault *f)
{
    char names[2][64];
    size_t n = access(w->dir, F_OK) == 0 ? temp_list(w->dir, "", names, 2) : 0;
    bool excused = f->removal || (s->image == IMAGE_LEFTOVER && n == 1 && strcmp(names[0], "pool.pa.new") == 0);
    EXPECT(n == 0 || excused, "%s: %s is left behind", world_context, names[0]);
}

static int again(const struct scenario *s, struct world *w, const struct fault *f)
{
    sentence_forget();
    int r = s->act(w);
    if (r == PA_EEXIST && is_creation(s) && f->removal)
        r = world_open(w);
    if (r == PA_ENOSPC && s->max_size != 0 && f->removal)
        return r; /* files that could not be removed still take their space */
    EXPECT(r == 0, "%s: again, without the fault: %s: %s", world_context, pa_strerror(r), pa_errormsg());
    return r;
}

/* The act, with the fault. */
static int act(const struct scenario *s, struct world *w, const struct fault *f, struct fault *ret)
{
    unsigned descriptors = process_descriptors();
    uint64_t hash = (s->flags & PA_READ_ONLY) != 0 ? temp_hash_dir(w->dir) : 0;
    fault_begin(f);
    sentence_forget();
    fault_arm();
    int r = s->act(w);
    *ret = *fault_disarm();
    if (r != 0 && fault_source_now() == FAULT_LIMIT)
        fault_note_limit(ret);
    judge_answer(w, ret, r);
    EXPECT(r == 0 || s->prepare != NULL || w->pool == NULL, "%s: a failed call gave a pool", world_context);
    if (r != 0 && !s->background)
        EXPECT(process_descriptors() == descriptors, "%s: a descriptor stays open", world_context);
    if ((s->flags & PA_READ_ONLY) != 0)
        EXPECT(temp_hash_dir(w->dir) == hash, "%s: a read-only open changed the files", world_context);
    return r;
}

static void verify_if_open(const struct scenario *s, struct world *w, const char *when)
{
    if (w->pool == NULL)
        return;
    if (s->prepare == NULL)
        world_find(w);
    world_verify(w, when);
}

/* The whole life of one world; false if there was nothing left to fail. */
static bool run_one(const struct scenario *s, const struct fault *plan)
{
    struct world w;
    struct fault f;
    snprintf(world_context, sizeof world_context, "%s --at=%u --onwards=%d --pick=%u%s", s->name, plan->at,
             plan->onwards, plan->pick, plan->interrupt ? " interrupted" : "");
    long memory = fault_live_memory();
    world_begin(&w, s->image);
    w.cores = s->cores == 0 ? 1 : s->cores;
    w.flags = s->flags;
    w.max_size = s->max_size;
    w.background = s->background;
    unsigned descriptors = process_descriptors();
    uint64_t space = process_address_space();
    if (s->prepare != NULL) {
        CK_OK(world_open(&w));
        world_find(&w);
        s->prepare(&w);
    }
    int r = act(s, &w, plan, &f);
    if (r != 0 && is_creation(s))
        judge_failed_creation(s, &w, &f);
    else if (!s->background &&
             (r == 0 || s->image != IMAGE_UNSOUND)) /* a copy of the directory would meet the thread at work */
        world_verify_crash(&w);
    verify_if_open(s, &w, "right after");
    if (r != 0) {
        again(s, &w, &f);
        if (s->image == IMAGE_UNSOUND)
            world_verify_crash(&w);
        verify_if_open(s, &w, "after the same again");
    }
    if (w.pool == NULL) {
        CK_OK(world_open(&w));
        world_find(&w);
    }
    world_finish(&w);
    EXPECT(process_descriptors() == descriptors, "%s: a descriptor stays open", world_context);
    EXPECT(w.slots != 0 || process_address_space() < space + 1024, "%s: address space is not given back",
           world_context);
    world_end(&w);
    EXPECT(fault_live_memory() == memory, "%s: %ld blocks of memory are not freed", world_context,
           fault_live_memory() - memory);
    return f.fired != 0;
}

/* --- all faults of a scenario -------------------------------------------------------------------------------------------------- */

/* Every n; each errno value that fits what the n-th is, or one of them, another each time. */
static unsigned run_all(const struct scenario *s, bool thorough)
{
    unsigned turn = (unsigned)(s - scenarios), n = 0;
    for (;; n++) {
        struct fault f = {.at = n + 1, .pick = thorough ? 0 : n + turn};
        if (!run_one(s, &f))
            return n;
        unsigned choices = thorough ? fault_disarm()->choices : 1;
        for (unsigned i = 1; i < choices; i++) {
            f.pick = i;
            run_one(s, &f);
        }
        f.onwards = true;
        for (unsigned i = 0; i < choices; i++) {
            f.pick = thorough ? i : n + turn + 1;
            run_one(s, &f);
        }
        EXPECT(n < 2000, "%s: no end", world_context);
    }
}

/* Real limits, from the strictest on. */
static void run_limits(const struct scenario *s)
{
    for (enum fault_limit limit = 0; limit < LIMIT_COUNT; limit++)
        for (unsigned at = 1; at <= fault_limit_steps(limit); at++) {
            struct fault f = {.at = at, .limit = limit};
            run_one(s, &f);
        }
}

static void run_scenario(const struct scenario *s)
{
    world_images();
    if (fault_source_now() == FAULT_LIMIT) {
        run_limits(s);
        return;
    }
    if (run_option("at", 0) != 0) {
        struct fault f = {.at = (unsigned)run_option("at", 0),
                          .onwards = run_option("onwards", 0) != 0,
                          .pick = (unsigned)run_option("pick", 0)};
        run_one(s, &f);
        return;
    }
    bool thorough = run_option("thorough", 0) != 0;
    unsigned n = run_all(s, thorough);
    if (fault_source_now() == FAULT_CALL) {
        struct fault f = {.interrupt = true};
        run_one(s, &f);
    }
    if (thorough) {
        unsetenv("PMEM2_FORCE_GRANULARITY");
        run_all(s, true);
    }
    if (run_option("verbose", 0) != 0)
        fprintf(stderr, "%s: %u places to fail\n", s->name, n);
}

START_TEST(one_scenario)
{
    run_scenario(&scenarios[_i]);
}
END_TEST

static void add(Suite *s)
{
    for (int i = 0; i < (int)scenario_count; i++) {
        TCase *c = tcase_create(scenarios[i].name);
        tcase_set_timeout(c, 300);
        tcase_add_unchecked_fixture(c, NULL, temp_clean);
        tcase_add_loop_test(c, one_scenario, i, i + 1);
        suite_add_tcase(s, c);
    }
}

/* All on one processor: a pool's cores are chosen by it, so a run repeats itself. */
static void stay_here(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    int cpu = sched_getcpu();
    CPU_SET(cpu < 0 ? 0 : (unsigned)cpu, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

/* Every operation on files must have failed somewhere. */
static bool all_seen(void)
{
    bool all = true;
    for (int op = 0; fault_source_now() == FAULT_FILE && op < FILE_OP_COUNT; op++)
        if (!fault_was_seen(op)) {
            fprintf(stderr, "fault: no fault of file operation %d was injected\n", op);
            all = false;
        }
    for (int call = 0; fault_source_now() == FAULT_CALL && call < CALL_COUNT; call++)
        if (!fault_was_seen(call)) {
            fprintf(stderr, "fault: no fault of system call %d was injected\n", call);
            all = false;
        }
    for (int limit = 0; fault_source_now() == FAULT_LIMIT && limit < LIMIT_COUNT; limit++)
        if (!fault_was_seen(limit)) {
            bool skipped = fault_limit_steps(limit) == 0;
            fprintf(stderr, "fault: limit %d %s\n", limit, skipped ? "is not tried in this build" : "never hit");
            all = all && skipped;
        }
    return all;
}

int fault_main(int argc, char **argv, const char *name, enum fault_source source)
{
    /* Write-backs are real, so every sync takes place. */
    setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 0);
    stay_here();
    fault_source_set(source);
    fault_totals_init();
    int result = run_main(argc, argv, name, add);
    fault_totals_print(name);
    if (result == EXIT_SUCCESS && getenv("CK_RUN_CASE") == NULL && !all_seen())
        result = EXIT_FAILURE;
    return result;
}
