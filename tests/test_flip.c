/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_flip.c -- every 8-byte word of a small closed pool's metadata is changed, one at a time.
 *
 * The metadata are the whole pool file, and each segment file up to its lowest block. Each word is inverted or has one random bit
 * flipped (--thorough=1: both), and is zeroed. Either pa_check or pa_open says so, with the file; or the pool is provably unharmed: every block, owner and byte as
 * before, and it goes on working. Whatever happens, nothing crashes, hangs, or harms more than the word did.
 *
 * The judging runs in a child, so that a crash is a finding too and the next word gets its turn. A finding is named
 * "file word how"; the options --word=N --stride=N narrow a run down.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define OWNERS       500u
#define FILES_MAX    8u
#define FINDINGS_MAX 20u

enum flip { FLIP_INVERT, FLIP_BIT, FLIP_ZERO, FLIP_COUNT };
static const char *const flip_names[] = {"inverted", "one bit", "zeroed"};

struct image {
    char name[64];
    char *data;
    size_t size, metadata_size;
};

/* The good pool, and what it holds. */
struct good {
    struct temp_path dir;
    struct image files[FILES_MAX];
    size_t n;
    struct blocks blocks;
    pa_pptr owners[OWNERS];
};

/* Shared with the child: how far it came and what it found. */
struct progress {
    volatile size_t file, word;
    volatile int flip;
    volatile bool finished;
    volatile uint64_t told, unharmed;
    volatile unsigned findings;
    char texts[FINDINGS_MAX][400];
};

static size_t size_of(size_t i)
{
    static const size_t sizes[] = {16, 48, 64, 100, 1000, 4096, 16384};
    return sizes[i % 7];
}

static void good_fill(pa_pool *pool)
{
    struct owners o;
    CK_OK(owners_open(&o, pool, OWNERS));
    for (size_t i = 0; i < OWNERS; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), size_of(i)));
        block_fill(pa_direct(pool, *owners_at(&o, i)), size_of(i), i);
    }
    for (size_t i = 0; i < OWNERS; i += 5)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    /* The program moved its newest owner: an allocation that is redone wrongly would show. */
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 64));
    block_fill(pa_direct(pool, *owners_at(&o, 0)), 64, 5);
    *owners_at(&o, 5) = *owners_at(&o, 0);
    *owners_at(&o, 0) = PA_NULL;
}

static bool size_fits(size_t i, const char *address)
{
    return block_is(address, i == 5 ? 64 : size_of(i), i);
}

static void good_read(struct good *g)
{
    char names[FILES_MAX][64];
    g->n = temp_list(g->dir.text, "", names, FILES_MAX);
    for (size_t i = 0; i < g->n; i++) {
        struct temp_path p = temp_join(g->dir.text, names[i]);
        struct image *f = &g->files[i];
        snprintf(f->name, sizeof f->name, "%.63s", names[i]);
        f->data = temp_read_file(p.text, &f->size);
        f->metadata_size = f->size;
        unsigned segment;
        if (sscanf(f->name, "segment-%x.pa", &segment) != 1)
            continue;
        for (size_t k = 0; k < g->blocks.n; k++) {
            uint64_t at = g->blocks.at[k].off;
            if (at >> 20 == segment && (at & 0xfffff) < f->metadata_size)
                f->metadata_size = at & 0xfffff;
        }
        if (f->metadata_size == f->size)
            f->metadata_size = 65536;
    }
}

static void good_make(struct good *g, void (*finish)(struct good *, pa_pool *))
{
    memset(g, 0, sizeof *g);
    g->dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.cores = 2;
    options.layout = "flip";
    struct pool_params params = {.lanes = 2, .lane_entries = 16, .slots = 16};
    pa_pool *pool = NULL;
    CK_OK(pool_create_ex(g->dir.text, &options, &params, &pool));
    good_fill(pool);
    finish(g, pool);
    pool_check_sound(g->dir.text);
    good_read(g);
}

static void good_note(struct good *g, pa_pool *pool)
{
    struct owners o;
    CK_OK(owners_open(&o, pool, OWNERS));
    owners_verify(&o);
    CK_OK(blocks_collect(&g->blocks, pool));
    for (size_t i = 0; i < OWNERS; i++)
        g->owners[i] = *owners_at(&o, i);
}

static void good_restore(const struct good *g)
{
    char names[64][64];
    size_t n = temp_list(g->dir.text, "", names, 64);
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        for (size_t k = 0; k < g->n; k++)
            known = known || strcmp(names[i], g->files[k].name) == 0;
        struct temp_path p = temp_join(g->dir.text, names[i]);
        if (!known)
            temp_remove(p.text);
    }
    for (size_t k = 0; k < g->n; k++) {
        struct temp_path p = temp_join(g->dir.text, g->files[k].name);
        temp_restore_file(p.text, g->files[k].data, g->files[k].size);
    }
}

/* --- judging, in the child --------------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void finding(struct progress *p, const struct good *g, const char *format,
                                                          ...)
{
    unsigned number = p->findings++;
    if (number >= FINDINGS_MAX)
        return;
    char *text = p->texts[number];
    int used =
        snprintf(text, sizeof p->texts[0], "%s word %zu %s: ", g->files[p->file].name, p->word, flip_names[p->flip]);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof p->texts[0] - (size_t)used, format, arguments);
    va_end(arguments);
}

static bool code_is_right(int code)
{
    return code == PA_ECORRUPT || code == PA_EVERSION;
}

/* All blocks, owners and contents as before. */
static const char *unharmed(const struct good *g, pa_pool *pool, struct owners *o)
{
    static char message[200];
    struct blocks now = {0};
    if (owners_open(o, pool, OWNERS) != 0)
        return "the owners are gone";
    if (!owners_are_whole(o, message, sizeof message))
        return message;
    bool same = blocks_collect(&now, pool) == 0 && now.n == g->blocks.n &&
                memcmp(now.at, g->blocks.at, now.n * sizeof *now.at) == 0;
    blocks_free(&now);
    if (!same)
        return "other blocks than before";
    for (size_t i = 0; i < OWNERS; i++) {
        if (memcmp(owners_at(o, i), &g->owners[i], sizeof(pa_pptr)) != 0)
            return "another owner than before";
        if (!pa_is_null(g->owners[i]) && !size_fits(i, pa_direct(pool, g->owners[i])))
            return "other contents than before";
    }
    return NULL;
}

static const char *works_on(pa_pool *pool, struct owners *o)
{
    static char message[200];
    for (size_t i = 0; i < 40; i++) {
        if (pa_deallocate(pool, owners_at(o, i)) != 0)
            return "a block cannot be freed any more";
        if (pa_allocate(pool, owners_at(o, i), size_of(i)) != 0)
            return "nothing can be allocated any more";
    }
    return owners_are_whole(o, message, sizeof message) ? NULL : message;
}

/* pa_check said nothing: then the pool opens, unharmed, or pa_open says it. */
static void judge_silent(struct progress *p, const struct good *g)
{
    pa_pool *pool = NULL;
    struct owners o;
    sentence_forget();
    int r = pa_open(g->dir.text, NULL, &pool);
    if (r != 0) {
        if (!code_is_right(r) || !sentence_is_good(".pa"))
            finding(p, g, "pa_open: %s: %s", pa_strerror(r), pa_errormsg());
        p->told++;
        return;
    }
    const char *harm = unharmed(g, pool, &o);
    if (harm == NULL)
        harm = works_on(pool, &o);
    if (harm != NULL)
        finding(p, g, "pa_check and pa_open say nothing, but %s", harm);
    r = pa_close(pool);
    if (r != 0)
        finding(p, g, "pa_close: %s", pa_errormsg());
    char *report = NULL;
    if (harm == NULL && pa_check(g->dir.text, &report) != 0)
        finding(p, g, "seemed unharmed, later pa_check says: %.200s", report == NULL ? "" : report);
    free(report);
    p->unharmed++;
}

static int look(pa_pptr block, size_t usable_size, void *arg)
{
    (void)block;
    (void)usable_size;
    return ++*(unsigned *)arg > 100000;
}

/* pa_check said it: the pool may open or not, but using it does not crash. */
static void judge_told(struct progress *p, const struct good *g)
{
    pa_pool *pool = NULL;
    int r = pa_open(g->dir.text, NULL, &pool);
    p->told++;
    if (r != 0)
        return;
    unsigned seen = 0;
    pa_stats stats;
    struct owners o;
    if (pa_foreach(pool, look, &seen) > 0)
        finding(p, g, "pa_foreach does not end");
    pa_get_stats(pool, &stats);
    if (owners_open(&o, pool, OWNERS) == 0)
        works_on(pool, &o);
    pa_close(pool);
}

static void judge(struct progress *p, const struct good *g)
{
    char *report = NULL;
    sentence_forget();
    int r = pa_check(g->dir.text, &report);
    if (r == 0) {
        judge_silent(p, g);
    } else {
        if (!code_is_right(r))
            finding(p, g, "pa_check's code is %s: %.200s", pa_strerror(r), report == NULL ? "" : report);
        else if (report == NULL || strstr(report, g->files[p->file].name) == NULL)
            finding(p, g, "pa_check's report does not name the file: %.200s", report == NULL ? "(none)" : report);
        judge_told(p, g);
    }
    free(report);
}

static void flip(const struct progress *p, const struct good *g)
{
    const struct image *f = &g->files[p->file];
    struct random r = {run_seed() + p->file * 1000003u + p->word};
    uint64_t value;
    memcpy(&value, f->data + p->word * 8, sizeof value);
    value = p->flip == FLIP_INVERT ? ~value : p->flip == FLIP_BIT ? value ^ (uint64_t)1 << random_below(&r, 64) : 0;
    struct temp_path path = temp_join(g->dir.text, f->name);
    temp_write_at(path.text, p->word * 8, &value, sizeof value);
}

/* A word that is zero is not zeroed, and unless the run is thorough each word is flipped in one way. */
static bool is_left_out(const struct progress *p, const struct good *g)
{
    static const uint64_t zero;
    if (p->flip == FLIP_ZERO)
        return memcmp(g->files[p->file].data + p->word * 8, &zero, sizeof zero) == 0;
    return run_option("thorough", 0) == 0 && ((p->word ^ run_seed()) & 1) != (p->flip == FLIP_BIT);
}

/* From where progress stands to the end. */
static void judge_all(struct progress *p, const struct good *g, size_t stride)
{
    for (; p->file < g->n; p->file++, p->word = 0)
        for (; p->word < g->files[p->file].metadata_size / 8; p->word += stride, p->flip = 0)
            for (; p->flip < FLIP_COUNT; p->flip++) {
                if (is_left_out(p, g))
                    continue;
                alarm(20);
                good_restore(g);
                flip(p, g);
                judge(p, g);
            }
    p->finished = true;
}

/* After a crash: note it and go on with the next word. */
static void crashed(struct progress *p, const struct good *g, int status)
{
    finding(p, g,
            WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "it hangs (status %#x)" : "it crashes (status %#x)",
            (unsigned)status);
    p->flip++;
}

static void run_flips(struct good *g, size_t stride)
{
    struct progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    p->word = run_option("word", 0);
    while (!p->finished && p->findings < FINDINGS_MAX) {
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            judge_all(p, g, stride);
            _exit(0);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        if (status != 0)
            crashed(p, g, status);
    }
    fprintf(stderr, "flip: %" PRIu64 " told, %" PRIu64 " unharmed, %u findings\n", p->told, p->unharmed, p->findings);
    for (unsigned i = 0; i < p->findings && i < FINDINGS_MAX; i++)
        fprintf(stderr, "  %s\n", p->texts[i]);
    ck_assert_uint_gt(p->told + p->unharmed, 0);
    EXPECT(p->findings == 0, "%u findings; the first: %s", p->findings, p->texts[0]);
}

static void close_at_once(struct good *g, pa_pool *pool)
{
    good_note(g, pool);
    CK_OK(pa_close(pool));
}

START_TEST(every_flipped_word_is_told_or_harmless)
{
    static struct good g;
    good_make(&g, close_at_once);
    run_flips(&g, run_option("stride", 1));
}
END_TEST

static void close_twice(struct good *g, pa_pool *pool)
{
    CK_OK(pa_close(pool));
    pool = pool_reopen(g->dir.text);
    good_note(g, pool);
    CK_OK(pa_close(pool));
}

START_TEST(every_flipped_word_of_a_reopened_pool_is_told_or_harmless)
{
    static struct good g;
    good_make(&g, close_twice);
    run_flips(&g, run_option("stride", 7));
}
END_TEST

static void add(Suite *s)
{
    ADD(s, every_flipped_word_is_told_or_harmless, 240);
    ADD(s, every_flipped_word_of_a_reopened_pool_is_told_or_harmless, 240);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "flip", add);
}
